//! Carries steps out.
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use garth_kernel::{descriptors, idmap, keyring, namespace, netns, signal, supervise};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Detached, Etc, INERT, Step, leaf};
use crate::Policy;
use crate::channel::Channel;
use crate::handshake::Failure;

/// What an init holds: its own ends, and what came with the order.
#[derive(Debug, Default)]
pub(crate) struct Fds {
    /// Of an init.
    pub(crate) channel: Option<Channel>,
    pub(crate) listener: Option<OwnedFd>,
    pub(crate) root: Option<OwnedFd>,
    pub(crate) state: Option<OwnedFd>,
    pub(crate) netns: Option<OwnedFd>,
    pub(crate) usr: Option<OwnedFd>,
    pub(crate) volumes: Vec<OwnedFd>,
    /// The user namespace of a program that serves a directory.
    pub(crate) users: Option<OwnedFd>,
    /// The pid namespace of the init that the keeper works for.
    pub(crate) pids: Option<OwnedFd>,
    /// Virtual files as detached mounts, and where in /proc each belongs.
    pub(crate) views: Vec<(&'static str, OwnedFd)>,
    /// What the init holds only so that it is there as long as the sandbox.
    pub(crate) held: Vec<OwnedFd>,
}

/// Carries out all steps, or says which failed.
pub(crate) fn apply(steps: &[Step], policy: &Policy, fds: &mut Fds) -> Result<(), Failure> {
    for step in steps {
        one(step, policy, fds)
            .map_err(|e| Failure { step: step.to_string(), errno: e.raw_os_error().unwrap_or(libc_eio()) })?;
    }
    Ok(())
}

fn libc_eio() -> i32 {
    Errno::IO.raw_os_error()
}

fn one(step: &Step, policy: &Policy, fds: &mut Fds) -> io::Result<()> {
    match step {
        Step::LeaveHostMounts => leave_host_mounts(),
        Step::HideCgroups => namespace::unshare(namespace::Own::Cgroups),
        Step::Mount { fs, at, flags, options } => {
            let options = std::ffi::CString::new(*options)?;
            Ok(rustix::mount::mount(*fs, at, *fs, *flags, options.as_c_str())?)
        }
        Step::Hold { at, flags, bytes } => {
            let options = std::ffi::CString::new(format!("size={bytes}"))?;
            Ok(rustix::mount::mount_remount(at, *flags, options.as_c_str())?)
        }
        Step::Enter(dir) => Ok(rustix::process::chdir(*dir)?),
        Step::LeaveCgroupRoot => leaf::enter(),
        Step::Directory(path) => unless_exists(rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))),
        Step::Give { at, id } => give(at, *id),
        Step::OwnMounts => namespace::unshare(namespace::Own::Mounts),
        Step::File { at, text } => std::fs::write(at, text),
        Step::Link { at, to } => Ok(rustix::fs::symlink(to, at)?),
        Step::Device { at, major, minor } => device(at, *major, *minor),
        Step::Show { from, at } => show(from, at),
        Step::Bind { from, at } => Ok(rustix::mount::mount_bind(from, at)?),
        Step::Protect(at) => {
            let flags = MountFlags::BIND | MountFlags::NODEV | MountFlags::RDONLY;
            Ok(rustix::mount::mount_remount(*at, flags, c"")?)
        }
        Step::Seal(at) => Ok(rustix::mount::mount_remount(at, INERT | MountFlags::RDONLY, c"")?),
        Step::Mask(node) => mask(&format!("stage/proc/{node}")),
        Step::ReadOnly(node) => {
            let path = format!("stage/proc/{node}");
            show(&path, &path)
        }
        Step::BecomeRoot(dir) => become_root(dir),
        Step::OwnKeyring => keyring::leave_session(),
        Step::OwnSession => {
            rustix::process::setsid()?;
            rustix::process::umask(Mode::from_raw_mode(0o022));
            Ok(())
        }
        Step::OwnNetwork => netns::unshare(),
        Step::Expose { from, at, flags } => expose(from, at, *flags),
        Step::OwnDevice { from, at, user, flags } => own_device(from, at, *user, *flags),
        Step::BecomeUser(user) => become_user(*user),
        Step::Serve(at) => mount_detached(fds.volumes.first().ok_or(Errno::BADF)?, at),
        Step::JoinUsers => namespace::join(held(&fds.users)?.as_fd(), namespace::Join::Users),
        Step::OpenFiles => {
            let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
            Ok(rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
        }
        Step::NoNewPrivileges => Ok(rustix::thread::set_no_new_privs(true)?),
        Step::WaitForChildren => signal::children(signal::ChildEnds::WaitedFor),
        Step::CoreLimit(bytes) => {
            let limit = Rlimit { current: Some(*bytes), maximum: Some(*bytes) };
            Ok(rustix::process::setrlimit(Resource::Core, limit)?)
        }
        Step::ComeFirst => Ok(supervise::come_first()?),
        Step::Write { at, text } => write(at, text),
        Step::NoStdio(null) => no_stdio(null),
        Step::BoundCapabilities => bound_capabilities(policy.capabilities),
        Step::Undumpable => Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?),
        Step::JoinNetwork => netns::enter(held(&fds.netns)?.as_fd()),
        Step::Attach { mount, at } => attach(mount, at, fds),
        Step::MoveToDisk(dir) => move_to_disk(dir, held(&fds.root)?),
        Step::CopyToDisk(dir) => copy_to_disk(dir, held(&fds.root)?),
        Step::Volume { number, at } => volume(fds.volumes.get(*number).ok_or(Errno::BADF)?, at, held(&fds.root)?),
        Step::ProcOfInit => mount_detached(&open_proc(held(&fds.pids)?.as_fd(), &[])?, "stage/proc"),
        Step::ShowViews => fds.views.drain(..).try_for_each(|(node, view)| {
            let at = format!("stage/proc/{node}");
            // A kernel without this file shows none.
            match mount_detached(&view, &at) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            }
        }),
        Step::Loosen(at) => mount_detached(&copy_of(at)?, at),
        Step::Hostname(name) => Ok(rustix::system::sethostname(name.as_bytes())?),
        Step::Etc(file) => match &fds.root {
            Some(root) => file.keep_in(root),
            None => file.keep(),
        },
        Step::EarlyFilter => policy.early.install(),
        Step::LateFilter => policy.late.install(),
        Step::BoundTo(bits) => bound_capabilities(policy.capabilities & CapabilitySet::from_bits_retain(*bits)),
        Step::DropCapabilities(bits) => drop_capabilities(policy.capabilities & CapabilitySet::from_bits_retain(*bits)),
        Step::CloseOthers => close_others(fds),
    }
}

fn held(fd: &Option<OwnedFd>) -> io::Result<&OwnedFd> {
    fd.as_ref().ok_or_else(|| Errno::BADF.into())
}

fn unless_exists(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

fn leave_host_mounts() -> io::Result<()> {
    namespace::unshare(namespace::Own::Mounts)?;
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

fn device(at: &str, major: u32, minor: u32) -> io::Result<()> {
    // The mode mask is 022 by now, and devices are for everyone.
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(CWD, at, FileType::CharacterDevice, mode, rustix::fs::makedev(major, minor))?;
    Ok(rustix::fs::chmod(at, mode)?)
}

/// A bind mount, made read-only by a second call: the first takes no flags (`mount(2)`, "Creating a bind mount").
fn show(from: &str, at: &str) -> io::Result<()> {
    match rustix::mount::mount_bind(from, at) {
        Err(Errno::NOENT) => return Ok(()),
        // Of a machine that is a sandbox itself: what is mounted below is locked to it (`mount_namespaces(7)`).
        Err(Errno::INVAL) => return show_tree(from, at),
        result => result?,
    }
    Ok(rustix::mount::mount_remount(at, INERT | MountFlags::BIND | MountFlags::RDONLY, c"")?)
}

/// The same with all that is mounted below.
fn show_tree(from: &str, at: &str) -> io::Result<()> {
    use rustix::mount::MountAttrFlags as Attribute;
    let tree = copy_of(from)?;
    let inert = Attribute::MOUNT_ATTR_NOSUID | Attribute::MOUNT_ATTR_NODEV | Attribute::MOUNT_ATTR_NOEXEC;
    idmap::restrict_tree(tree.as_fd(), u64::from((inert | Attribute::MOUNT_ATTR_RDONLY).bits()))?;
    mount_detached(&tree, at)
}

fn expose(from: &Path, at: &str, flags: MountFlags) -> io::Result<()> {
    // Followed, as the host's own libraries are links to each other.
    if std::fs::metadata(from)?.is_dir() {
        unless_exists(rustix::fs::mkdir(at, Mode::from_raw_mode(0o755)))?;
    } else {
        let place = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        rustix::fs::open(at, place, Mode::from_raw_mode(0o644))?;
    }
    rustix::mount::mount_bind(from, at)?;
    Ok(rustix::mount::mount_remount(at, flags | MountFlags::BIND, c"")?)
}

/// A node on a mount without devices can be made and not opened, so a mount of its own goes over it.
fn own_device(from: &Path, at: &str, user: u32, flags: MountFlags) -> io::Result<()> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let node = std::fs::metadata(from)?;
    if !node.file_type().is_char_device() {
        return Err(Errno::NOTTY.into());
    }
    unless_exists(rustix::fs::mknodat(CWD, at, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, node.rdev()))?;
    give(at, user)?;
    rustix::mount::mount_bind(at, at)?;
    Ok(rustix::mount::mount_remount(at, flags | MountFlags::BIND, c"")?)
}

/// Of the one thread that there is.
fn become_user(user: u32) -> io::Result<()> {
    use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (own, group) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    Ok(set_thread_res_uid(own, own, own)?)
}

fn mask(path: &str) -> io::Result<()> {
    let cover = match rustix::fs::lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => "stage/empty",
        Ok(_) => "stage/dev/null",
    };
    Ok(rustix::mount::mount_bind(cover, path)?)
}

/// With `pivot_root(".", ".")` the old root ends up on top of the new one, and is then dropped with all below it
/// (`pivot_root(2)`, NOTES): from here on nothing of it can be reached by any path.
fn become_root(dir: &str) -> io::Result<()> {
    rustix::process::chdir(dir)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

fn no_stdio(null: &str) -> io::Result<()> {
    let null = rustix::fs::open(null, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

/// From the next `execve(2)` on nothing that this thread starts has others than these. The sets are 64 bits wide: the
/// highest that the kernel may know.
pub fn bound_capabilities(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The first number that the kernel does not know ends the list.
            Err(Errno::INVAL) => break,
            result => result?,
        }
    }
    Ok(())
}

fn drop_capabilities(kept: CapabilitySet) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn write(path: &str, text: &str) -> io::Result<()> {
    let fd = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(fd, text.as_bytes())?;
    Ok(())
}

/// Mounts onto the directory itself: a link in its place is not followed, so a disk cannot send a mount elsewhere.
fn attach(mount: &Detached, at: &str, fds: &Fds) -> io::Result<()> {
    let mount = held(match mount {
        Detached::Root => &fds.root,
        Detached::Usr => &fds.usr,
    })?;
    rustix::mount::move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(rustix::mount::mount_remount(at, MountFlags::BIND | MountFlags::NODEV, c"")?)
}

fn move_to_disk(dir: &str, root: &OwnedFd) -> io::Result<()> {
    let from = format!("stage/{dir}");
    on_disk(dir, root, || rustix::mount::move_mount(CWD, &from, root, dir, MoveMountFlags::empty()))
}

fn copy_to_disk(dir: &str, root: &OwnedFd) -> io::Result<()> {
    let copy = copy_of(&format!("stage/{dir}"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    on_disk(dir, root, || rustix::mount::move_mount(&copy, "", root, dir, flags))
}

/// proc and sysfs (linux/magic.h): their mounts hide things by what is mounted on them, and by nothing else.
const HIDING: [u64; 2] = [0x9fa0, 0x6265_6572];

/// Puts a detached mount at a place below a root, which is made when it is missing; links there lead nowhere but into the
/// root, and nothing of proc or sysfs is covered.
pub fn volume(mount: &OwnedFd, at: &str, root: &OwnedFd) -> io::Result<()> {
    let place = made_in(root, at)?;
    if u64::try_from(rustix::fs::fstatfs(&place)?.f_type).is_ok_and(|kind| HIDING.contains(&kind)) {
        return Err(Errno::PERM.into());
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", &place, "", flags)?)
}

/// A directory of the disk, made with those above it when it is missing. The disk's links are followed as its own root
/// would have them: none leads out of it.
fn made_in(root: &OwnedFd, at: &str) -> io::Result<OwnedFd> {
    let mut above = within(root, ".")?;
    let mut path = String::new();
    for part in at.split('/').filter(|part| !part.is_empty()) {
        path = format!("{path}/{part}");
        above = match within(root, &path) {
            Err(Errno::NOENT) => {
                unless_exists(rustix::fs::mkdirat(&above, part, Mode::from_raw_mode(0o755)))?;
                within(root, &path)?
            }
            found => found?,
        };
    }
    Ok(above)
}

fn within(root: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Makes the directory when it is missing.
fn on_disk(dir: &str, root: &OwnedFd, put: impl Fn() -> rustix::io::Result<()>) -> io::Result<()> {
    match put() {
        Err(Errno::NOENT) => {
            // Another start on the same tree may make it at the same moment.
            unless_exists(rustix::fs::mkdirat(root, dir, Mode::from_raw_mode(0o755)))?;
            Ok(put()?)
        }
        result => Ok(result?),
    }
}

fn copy_of(tree: &str) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(CWD, tree, flags)?)
}

fn mount_detached(mount: &OwnedFd, at: &str) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// A proc for a pid namespace, as a detached mount (option `pidns`, Linux 6.17).
pub(crate) fn open_proc(pids: BorrowedFd<'_>, options: &[(String, String)]) -> io::Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let fs = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_fd(&fs, "pidns", pids)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&fs, key, value)?;
    }
    rustix::mount::fsconfig_set_string(&fs, "source", "proc")?;
    rustix::mount::fsconfig_create(&fs)?;
    let inert =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, inert)?)
}

fn give(at: &str, id: u32) -> io::Result<()> {
    let (user, group) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
    Ok(rustix::fs::chownat(CWD, at, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
}

impl Etc {
    /// Brings the file of the root that this process has up to date.
    pub fn keep(&self) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.keep_in(&rustix::fs::open("/", flags, Mode::empty())?)
    }

    /// The same of another root.
    pub fn keep_in(&self, root: &OwnedFd) -> io::Result<()> {
        let result = within(root, "etc").map_err(io::Error::from).and_then(|etc| match self {
            Self::Content { name, content } => keep(etc.as_fd(), name, |_| Some(content.clone())),
            Self::Hosts(hosts) => keep(etc.as_fd(), "hosts", |old| with_hosts(old, hosts)),
        });
        match result {
            // Whoever filled the disk must be able to start the sandbox to empty it.
            Err(e) if matches!(e.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOSPC | Errno::DQUOT)) => {
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

/// Larger than any such file; what is longer is the user's own doing and stays.
const LONGEST_ETC: u64 = 1 << 20;

/// Writes what `wanted` makes of a file's content, when that is another. Links and special files in its place are
/// replaced, never followed or opened for waiting.
fn keep(dir: BorrowedFd<'_>, name: &str, wanted: impl Fn(&str) -> Option<String>) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut old = String::new();
    if let Ok(fd) = rustix::fs::openat(dir, name, flags | OFlags::RDONLY, Mode::empty()) {
        let regular = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == FileType::RegularFile;
        if regular && File::from(fd).take(LONGEST_ETC).read_to_string(&mut old).is_ok() {
            match wanted(&old) {
                Some(new) if new != old => {}
                _ => return Ok(()),
            }
        }
    }
    let Some(new) = wanted(&old) else { return Ok(()) };
    replace(dir, name, new.as_bytes())
}

fn replace(dir: BorrowedFd<'_>, name: &str, content: &[u8]) -> io::Result<()> {
    let draft = format!("{name}.garth-new");
    let _ = rustix::fs::unlinkat(dir, &draft, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(dir, &draft, flags, Mode::from_raw_mode(0o644))?);
    let result = file.write_all(content).and_then(|()| Ok(rustix::fs::renameat(dir, &draft, dir, name)?));
    if result.is_err() {
        let _ = rustix::fs::unlinkat(dir, &draft, AtFlags::empty());
    }
    result
}

/// The file with a line for each name that it lacks; `None` when it lacks none.
fn with_hosts(old: &str, hosts: &[(String, String)]) -> Option<String> {
    let has = |address: &str, name: &str| {
        old.lines().any(|line| {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            words.next() == Some(address) && words.any(|word| word == name)
        })
    };
    let missing: Vec<String> =
        hosts.iter().filter(|(address, name)| !has(address, name)).map(|(a, n)| format!("{a}\t{n}\n")).collect();
    let separator = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
    (!missing.is_empty()).then(|| format!("{old}{separator}{}", missing.concat()))
}

fn close_others(fds: &mut Fds) -> io::Result<()> {
    // Closed one by one first: an owner whose descriptor is closed behind its back would close another's later.
    *fds = Fds {
        channel: fds.channel.take(),
        listener: fds.listener.take(),
        state: fds.state.take(),
        held: std::mem::take(&mut fds.held),
        ..Fds::default()
    };
    let channel = fds.channel.as_ref().ok_or(Errno::BADF)?;
    let mut kept = vec![channel.as_fd(), held(&fds.listener)?.as_fd(), held(&fds.state)?.as_fd()];
    kept.extend(fds.held.iter().map(AsFd::as_fd));
    descriptors::close_all_but(&kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keep_what_the_user_wrote() {
        let hosts = [("127.0.0.1".to_owned(), "localhost".to_owned()), ("127.0.1.1".to_owned(), "web".to_owned())];
        assert_eq!(with_hosts("", &hosts).as_deref(), Some("127.0.0.1\tlocalhost\n127.0.1.1\tweb\n"));
        let mine = "127.0.0.1 localhost x\n10.0.0.9 db";
        assert_eq!(with_hosts(mine, &hosts), Some(format!("{mine}\n127.0.1.1\tweb\n")));
        assert_eq!(with_hosts(&format!("{mine}\n127.0.1.1 web # mine\n"), &hosts), None);
    }

    #[test]
    fn a_link_in_place_of_a_file_is_replaced_and_not_followed() {
        let dir = std::env::temp_dir().join(format!("garth-etc-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("dir");
        let (target, link) = (dir.join("target"), dir.join("resolv.conf"));
        std::fs::write(&target, "precious").expect("target");
        std::os::unix::fs::symlink(&target, &link).expect("link");
        let etc: OwnedFd = File::open(&dir).expect("open").into();
        keep(etc.as_fd(), "resolv.conf", |_| Some("nameserver ::1\n".to_owned())).expect("keep");
        assert_eq!(std::fs::read_to_string(&target).expect("target"), "precious");
        assert_eq!(std::fs::read_to_string(&link).expect("link"), "nameserver ::1\n");
        std::fs::remove_dir_all(&dir).expect("clean");
    }
}
