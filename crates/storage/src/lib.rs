//! Where projects' files live: images, disks and their quotas, for the engine and the image importer.
//!
//! ```text
//!                   new_image            commit               create_disk
//!  image importer ------------> draft ------------> image ------------------> disk ---> DiskRoot, state directory
//!                               (dropped = gone)    (never changes)           (the project's, with a limit)
//! ```
//!
//! A [`Pool`] is one directory below the data directory, run by one of two drivers. `btrfs` keeps an
//! image as a read-only subvolume and a disk as a writable snapshot with a hard quota; it lives on the
//! data directory's own filesystem when that is btrfs, else in one sparse file behind a loop device,
//! which grows on demand, leaves the host a reserve and gives space back. `overlay` keeps directories,
//! joins them by overlayfs, and has no quotas; [`Pool::warnings`] says so.
//!
//! Whatever is half-made lives in `drafts/`, which nobody lists and [`Pool::sweep`] empties.
//!
//! This crate does not know what is in an image, never follows a path a project could have made, and
//! mounts nothing but the pool itself: joining the directories of a [`DiskRoot`] is the runtime's work.
#![forbid(unsafe_code)]

mod btrfs;
mod disk;
mod error;
mod guest;
mod image;
mod layout;
mod overlay;
mod pool;
mod removal;

pub use disk::{Disk, DiskRoot, DiskUsage, Root, UsrOverlay};
pub use error::{Error, ErrorKind};
pub use guest::{GuestContents, GuestDisk, GuestDraft};
pub use image::{Image, ImageDraft, ImageMeta, UsrSource};
pub use overlay::opaque_mark;
pub use pool::{Driver, DriverChoice, Maintained, Pool, PoolOptions, PoolUsage, Swept};
pub use removal::remove_tree_at;
