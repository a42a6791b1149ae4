//! What sandboxes of mapped users need besides: each feature is tried, as versions say little about a kernel.
use std::os::fd::{AsFd, OwnedFd};

use garth_kernel::idmap;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsOpenFlags, OpenTreeFlags, fsconfig_set_fd, fsopen, open_tree};

use super::{Finding, finding};
use crate::ids::IdRanges;

pub(super) fn probe() -> Vec<Finding> {
    vec![users(), clocks(), fuse(), held_back_calls(), mapped_mounts(), layers(), proc_of_pids(), ids()]
}

fn kernel(name: &'static str, works: &str, result: std::io::Result<()>, fix: &'static str) -> Finding {
    let result = result.map(|()| works.to_owned()).map_err(|e| format!("no {works}: {e}"));
    finding(name, result, fix)
}

fn users() -> Finding {
    let most = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let result = match most.trim().parse::<u64>() {
        Ok(0) => Err("user namespaces are switched off".to_owned()),
        Ok(_) => Ok("user namespaces".to_owned()),
        Err(_) => Err("the kernel has no user namespaces".to_owned()),
    };
    finding("user namespaces", result, "sysctl user.max_user_namespaces=65536, or a kernel with CONFIG_USER_NS")
}

fn clocks() -> Finding {
    let there = std::path::Path::new("/proc/self/ns/time").exists();
    let result = if there { Ok(()) } else { Err(std::io::ErrorKind::Unsupported.into()) };
    kernel("clocks", "time namespaces", result, "use a kernel with CONFIG_TIME_NS (Linux 5.6)")
}

fn fuse() -> Finding {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let found = known.lines().any(|line| line.trim_start_matches("nodev").trim() == "fuse");
    let result = if found { Ok(()) } else { Err(std::io::ErrorKind::Unsupported.into()) };
    kernel("fuse", "file systems in user space", result, "modprobe fuse")
}

fn held_back_calls() -> Finding {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let found = actions.split_whitespace().any(|action| action == "user_notif");
    let result = if found { Ok(()) } else { Err(std::io::ErrorKind::Unsupported.into()) };
    kernel("seccomp notification", "system calls answered by another process", result, "use Linux 5.19 or later")
}

/// Tries it with the map of the host's own users, which the kernel refuses, but for another reason than not knowing it.
fn mapped_mounts() -> Finding {
    let try_it = || -> std::io::Result<()> {
        let own: OwnedFd = std::fs::File::open("/proc/self/ns/user")?.into();
        match idmap::map(usr()?.as_fd(), own.as_fd()) {
            // EPERM: "the initial user namespace" (mount_setattr(2)); EINVAL and ENOSYS: not for this file system or kernel.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => Ok(()),
            result => result,
        }
    };
    let fix = "use Linux 5.12 or later, and /usr on ext4, xfs, btrfs or another file system that can map its owners";
    kernel("mapped mounts", "mounts whose owners are mapped", try_it(), fix)
}

fn layers() -> Finding {
    let try_it = || -> std::io::Result<()> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        Ok(fsconfig_set_fd(&fs, "lowerdir+", usr()?)?)
    };
    kernel("overlay layers", "overlays of layers that are attached nowhere", try_it(), "use Linux 6.15 or later")
}

fn proc_of_pids() -> Finding {
    let try_it = || -> std::io::Result<()> {
        let own = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        Ok(fsconfig_set_fd(&fs, "pidns", own)?)
    };
    kernel(
        "proc of a pid namespace",
        "proc made from outside of its pid namespace",
        try_it(),
        "use Linux 6.17 or later",
    )
}

fn usr() -> std::io::Result<OwnedFd> {
    Ok(open_tree(CWD, "/usr", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

fn ids() -> Finding {
    let result = IdRanges::read().map_err(|e| e.to_string()).and_then(|ranges| match ranges.describe() {
        (0, text) => Err(text),
        (_, text) => Ok(text),
    });
    let fix = "add `garth:1879048192:268435456` to /etc/subuid and /etc/subgid, with a range that no one else has";
    finding("user ids", result, fix)
}
