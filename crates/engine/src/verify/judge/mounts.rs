//! What is mounted in a sandbox, as the host sees it.

use super::{Evidence, Verdict};

/// A line of mountinfo, as far as it matters (proc_pid_mountinfo(5)).
#[derive(Debug)]
pub(super) struct Mount<'a> {
    pub(super) device: &'a str,
    /// The directory of the file system that is shown.
    pub(super) root: &'a str,
    pub(super) at: &'a str,
    /// What this mount allows: `ro`, `nodev` and the like.
    pub(super) options: &'a str,
    pub(super) kind: &'a str,
}

pub(super) fn mount(line: &str) -> Option<Mount<'_>> {
    let (first, second) = line.split_once(" - ")?;
    let words: Vec<&str> = first.split(' ').collect();
    Some(Mount {
        device: words.get(2)?,
        root: words.get(3)?,
        at: words.get(4)?,
        options: words.get(5)?,
        kind: second.split(' ').next()?,
    })
}

/// File systems that hold nothing of a disk.
const KERNELS: [&str; 9] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "ramfs", "nsfs"];
/// What a sandbox that may mount can make of its own files.
const MADE_INSIDE: [&str; 3] = ["overlay", "fuse", "binfmt_misc"];

/// Nothing is mounted but what the level has, and of disks only the project's own.
pub(in crate::verify) fn mounts(evidence: &Evidence<'_>) -> Verdict {
    let lines: Option<Vec<Mount<'_>>> = evidence.host.mountinfo.lines().map(mount).collect();
    let mounts = lines.ok_or_else(|| "the mounts cannot be read".to_owned())?;
    let disk = mounts.iter().find(|mount| mount.at == "/").ok_or_else(|| "no root is mounted".to_owned())?;
    if disk.kind != "overlay" && !disk.root.split('/').any(|part| part == evidence.subject.disk) {
        return Err(format!("the root is {} of a {}, not the project's disk", disk.root, disk.kind));
    }
    let places = evidence.subject.level.mounts;
    for mount in &mounts {
        if places.is_some_and(|places| !places.iter().any(|place| is_at(mount.at, place))) {
            return Err(format!("{} is mounted at {}", mount.kind, mount.at));
        }
        let of_the_disk = mount.device == disk.device && mount.root.starts_with(disk.root);
        let kind = mount.kind.split('.').next().unwrap_or_default();
        let harmless = match places {
            Some(_) => KERNELS.contains(&kind) || (mount.at == "/usr" && kind == "overlay"),
            None => KERNELS.contains(&kind) || MADE_INSIDE.contains(&kind),
        };
        let shown = evidence.subject.level.of_the_host.iter().any(|dir| mount.at.starts_with(dir));
        if !of_the_disk && !harmless && !shown {
            return Err(format!("{} of a {} is mounted at {}", mount.root, mount.kind, mount.at));
        }
    }
    Ok(format!("{} mounts, of disks only the project's own", mounts.len()))
}

/// `/proc`, `/sys` and `/dev` have mounts below them; the others stand alone.
fn is_at(at: &str, place: &str) -> bool {
    let below = ["/proc", "/sys", "/dev"].contains(&place);
    at == place || (below && at.strip_prefix(place).is_some_and(|rest| rest.starts_with('/')))
}
