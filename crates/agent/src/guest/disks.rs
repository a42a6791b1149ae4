//! The disks of a guest: found by their serials, put together, made the root.
//!
//! ```text
//!  project's disk (ext4)      what becomes of it
//!    /rootfs                  /
//!    /usr/upper /usr/work     with the other disk below: an overlay on /usr
//!    /state                   a mount that no path leads to
//! ```

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use garth_spec::{GuestBegin, GuestDisk, GuestFilesystem};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen,
};

use super::{At, GuestFailure, Kind, devices, volumes};

/// In the first file system, where nothing of the sandbox sees it afterwards.
const DISK: &str = "/disk";
const LOWER: &str = "/lower";
const ROOT: &str = "/root";

/// Of the image's /usr: what nearly every first command needs.
const FIRST: [&str; 7] = [
    "bin/sh",
    "bin/bash",
    "bin/env",
    "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "lib/x86_64-linux-gnu/libc.so.6",
    "lib/x86_64-linux-gnu/libtinfo.so.6",
    "lib64/libc.so.6",
];

/// Mounted before there were disks, and moved onto the one that becomes the root.
const MOVED: [&str; 4] = ["dev", "proc", "sys", "run"];

/// What of the disk is held besides its root.
#[derive(Debug)]
pub(super) struct Entered {
    /// The agent's directory.
    pub(super) state: OwnedFd,
    /// The root as it is on the disk: always writable, and nothing that is mounted on it later is seen.
    pub(super) root: OwnedFd,
}

/// Mounts the disks, makes the project's the root of this process and of all that it starts.
pub(super) fn enter(order: &GuestBegin) -> Result<Entered, GuestFailure> {
    let root = &order.root;
    if root.filesystem == GuestFilesystem::Erofs {
        return Err(GuestFailure::new(Kind::Invalid, "mount the project's disk", "EROFS cannot be written"));
    }
    let device = device(&root.serial)?;
    // Here a check of the file system belongs, once the first files hold a static e2fsck: until then a disk that the
    // journal cannot mend is refused by the mount.
    mount(&device, DISK, root.filesystem, MountFlags::NOATIME).at(|| "mount the project's disk".to_owned())?;
    grow(&device).at(|| "grow the file system to its disk".to_owned())?;
    let on_disk = |name: &str| Path::new(DISK).join(name);
    for name in ["rootfs", "state"] {
        std::fs::create_dir_all(on_disk(name)).at(|| format!("make {name} on the project's disk"))?;
    }
    let state = tree(&on_disk("state")).at(|| "open the agent's directory".to_owned())?;
    std::fs::create_dir_all(ROOT).at(|| "make a place for the root".to_owned())?;
    let entered = Entered { state, root: tree(&on_disk("rootfs")).at(|| "open the root".to_owned())? };
    tree(&on_disk("rootfs")).and_then(|tree| attach(&tree, ROOT)).at(|| "attach the root".to_owned())?;
    if let Some(usr) = &order.usr {
        lower(usr)?;
        overlay().at(|| "lay /usr together".to_owned())?;
        if let Some(at) = &order.usr_alone_at {
            let shown =
                std::fs::create_dir_all(at).and_then(|()| tree(Path::new(LOWER))).and_then(|tree| attach(&tree, at));
            shown.at(|| format!("show the image's /usr at {at}"))?;
        }
    }
    MOVED.iter().try_for_each(|name| move_to_root(name).at(|| format!("move /{name}")))?;
    volumes::show(&order.volumes, ROOT)?;
    if order.read_only {
        protect(order.usr.is_some()).at(|| "protect the root".to_owned())?;
    }
    become_root().at(|| "make the project's disk the root".to_owned())?;
    Ok(entered)
}

/// The root and what is on it cannot be written from now on, but for `/tmp`, which is in memory.
fn protect(has_usr: bool) -> io::Result<()> {
    let tmp = format!("{ROOT}/tmp");
    match std::fs::create_dir(&tmp) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    rustix::mount::mount("tmpfs", tmp, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777")?;
    let usr = has_usr.then(|| format!("{ROOT}/usr"));
    for at in usr.iter().map(String::as_str).chain([ROOT]) {
        rustix::mount::mount_remount(at, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOATIME, c"")?;
    }
    Ok(())
}

/// Mounts the image's /usr, has the programs that are run first in memory, and leaves all other disks without a driver.
pub(super) fn prepare(usr: Option<&GuestDisk>) -> Result<(), GuestFailure> {
    let mut kept = None;
    if let Some(usr) = usr {
        let device = lower(usr)?;
        kept = bus_name(&device);
        // What is not there is not run.
        FIRST.iter().for_each(|name| drop(std::fs::read(Path::new(LOWER).join(name))));
    }
    devices::release(kept.as_ref()).at(|| "leave disks alone".to_owned())
}

/// The image's /usr, mounted unless it is; its device.
fn lower(usr: &GuestDisk) -> Result<PathBuf, GuestFailure> {
    let device = device(&usr.serial)?;
    let number = |path: &str| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    if number(LOWER).is_none_or(|dev| Some(dev) == number("/")) {
        mount(&device, LOWER, usr.filesystem, MountFlags::RDONLY).at(|| "mount the image's /usr".to_owned())?;
    }
    Ok(device)
}

/// What a disk is called on the bus of virtio.
fn bus_name(device: &Path) -> Option<OsString> {
    let link = Path::new("/sys/block").join(device.file_name()?).join("device");
    Some(std::fs::read_link(link).ok()?.file_name()?.to_owned())
}

/// The disk with this serial, as a device.
fn device(serial: &str) -> Result<PathBuf, GuestFailure> {
    let words = std::fs::read_to_string("/proc/cmdline").at(|| "read the kernel's command line".to_owned())?;
    let found = match place(&words, serial) {
        Some(number) => devices::disk(number),
        // Only a driver can ask for a serial.
        None => devices::find().map(|()| with_serial(Path::new("/sys/block"), serial)),
    };
    found
        .at(|| format!("find the disk {serial}"))?
        .map(|name| Path::new("/dev").join(name))
        .ok_or_else(|| GuestFailure::new(Kind::Failed, format!("find the disk {serial}"), "the machine has none such"))
}

/// A machine whose disks cannot have serials tells their order to the kernel (`garth.disks=root,usr`).
fn place(words: &str, serial: &str) -> Option<usize> {
    let order = words.split_whitespace().find_map(|word| word.strip_prefix("garth.disks="))?;
    order.split(',').position(|known| known == serial)
}

fn with_serial(blocks: &Path, serial: &str) -> Option<String> {
    let has =
        |block: &Path| std::fs::read_to_string(block.join("serial")).is_ok_and(|found| found.trim_end() == serial);
    let block = std::fs::read_dir(blocks).ok()?.flatten().find(|block| has(&block.path()))?;
    block.file_name().into_string().ok()
}

/// The host may have made the disk larger since the last mount.
fn grow(device: &Path) -> io::Result<()> {
    let name = device.file_name().unwrap_or_default();
    let sectors = std::fs::read_to_string(Path::new("/sys/block").join(name).join("size"))?;
    let bytes = sectors.trim().parse::<u64>().map_err(io::Error::other)? * 512;
    let disk = rustix::fs::open(DISK, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let has = rustix::fs::fstatfs(&disk)?;
    let block = u64::try_from(has.f_bsize).map_err(io::Error::other)?;
    // What the file system counts leaves its own tables out; less than a group more is not worth a growth.
    let group = block * block * 8;
    if bytes <= has.f_blocks * block + group.max(bytes / 16) {
        return Ok(());
    }
    garth_kernel::ext4::grow(std::os::fd::AsFd::as_fd(&disk), bytes / block)
}

fn mount(device: &Path, at: &str, filesystem: GuestFilesystem, flags: MountFlags) -> io::Result<()> {
    std::fs::create_dir_all(at)?;
    Ok(rustix::mount::mount(device, at, filesystem.name(), flags, c"")?)
}

/// A mount of its own of what is below a directory, attached nowhere.
fn tree(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::mount::open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

fn attach(mount: &OwnedFd, at: &str) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn overlay() -> io::Result<()> {
    let (upper, work) = (format!("{DISK}/usr/upper"), format!("{DISK}/usr/work"));
    let place = format!("{ROOT}/usr");
    for directory in [&upper, &work, &place] {
        std::fs::create_dir_all(directory)?;
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let options = [
        ("source", "overlay"),
        ("lowerdir", LOWER),
        ("upperdir", &upper),
        ("workdir", &work),
        // As at the other levels, with the same layers: renaming a directory of the lower one works.
        ("redirect_dir", "on"),
    ];
    for (key, value) in options {
        fsconfig_set_string(&fs, key, value)?;
    }
    fsconfig_create(&fs)?;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    attach(&mount, &place)
}

/// Onto the directory itself, which is made when it is missing; a link in its place is not followed.
fn move_to_root(name: &str) -> io::Result<()> {
    let (from, at) = (format!("/{name}"), format!("{ROOT}/{name}"));
    match std::fs::create_dir(&at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    Ok(rustix::mount::move_mount(CWD, &from, CWD, &at, MoveMountFlags::empty())?)
}

/// The first file system cannot be left by `pivot_root` (`pivot_root(2)`, NOTES): the new root is mounted over it.
fn become_root() -> io::Result<()> {
    rustix::process::chdir(ROOT)?;
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

/// Has all written out; how much the disk need not keep.
pub(super) fn settle() -> io::Result<Option<u64>> {
    let root = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::syncfs(&root)?;
    let trimmed = match garth_kernel::trim::all(std::os::fd::AsFd::as_fd(&root)) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => None,
        result => Some(result?),
    };
    rustix::fs::syncfs(&root)?;
    Ok(trimmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_by_its_serial_alone() {
        let blocks = tempfile::tempdir().expect("directory");
        for (disk, serial) in [("vda", "usr"), ("vdb", "project"), ("loop0", "")] {
            std::fs::create_dir(blocks.path().join(disk)).expect("disk");
            std::fs::write(blocks.path().join(disk).join("serial"), serial).expect("serial");
        }
        std::fs::create_dir(blocks.path().join("ram0")).expect("disk");
        assert_eq!(with_serial(blocks.path(), "project").as_deref(), Some("vdb"));
        assert_eq!(with_serial(blocks.path(), "proj"), None);
    }

    #[test]
    fn a_disk_without_a_serial_is_found_by_its_place_in_the_order() {
        let words = "console=ttyS0 quiet garth.disks=root,usr panic=-1\n";
        assert_eq!(place(words, "root"), Some(0));
        assert_eq!(place(words, "usr"), Some(1));
        assert_eq!(place(words, "us"), None);
        assert_eq!(place("console=ttyS0", "root"), None);
    }
}
