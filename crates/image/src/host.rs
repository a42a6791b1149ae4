//! The built-in image `host`: this machine's own `/usr` below a writable layer, and a clean root around it.
//!
//! ```text
//!  /etc, /usr/local  --plan (reads, decides)-->  Vec<Entry>  --apply-->  ImageDraft
//!                                                    '--digest--> ImageId
//! ```
//!
//! The id is a digest of the plan: a machine whose `/etc` changed gets a new image, one that did not
//! gets the one it has. Only what `host/etc.list` names is copied, only when every user of the machine
//! may read it, and never what looks like a key or a password.

mod accounts;
mod etc;
mod hidden;
mod plan;
mod usr;

use garth_spec::{ImageConfig, ImageId};
use garth_storage::{Image, ImageMeta, Pool, UsrSource};
use std::path::Path;

use crate::error::Error;
use plan::Plan;

pub use usr::usr;

/// The current `host` image of this pool; made when it is missing or the machine's `/etc` has changed.
///
/// Reads a few hundred small files; the caller keeps the answer while it runs.
pub fn ensure(pool: &Pool) -> Result<Image, Error> {
    ensure_from(pool, Path::new("/"))
}

/// The id that [`ensure`] would answer with.
pub fn current_id() -> Result<ImageId, Error> {
    Ok(Plan::read(Path::new("/"))?.id())
}

fn ensure_from(pool: &Pool, machine: &Path) -> Result<Image, Error> {
    let plan = Plan::read(machine)?;
    if let Some(image) = pool.image(plan.id())? {
        return Ok(image);
    }
    let draft = pool.new_image(plan.id())?;
    let written = plan.apply(&draft.path(), &draft.usr_upper()?)?;
    let meta = ImageMeta { config: config(), usr: UsrSource::Host, entries: written.entries, bytes: written.bytes };
    Ok(draft.commit(meta)?)
}

fn config() -> ImageConfig {
    ImageConfig {
        env: vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            "LANG=C.UTF-8".to_owned(),
        ],
        workdir: Some("/root".to_owned()),
        ..ImageConfig::default()
    }
}

#[cfg(test)]
mod tests;
