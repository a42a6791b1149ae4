//! What is mounted in a sandbox, as the host sees it.

use std::path::Path;

use garth_verify::Verdict;

use super::Evidence;
use crate::verify::Shown;

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
    let (device, root, at, options) = (words.get(2)?, words.get(3)?, words.get(4)?, words.get(5)?);
    Some(Mount { device, root, at, options, kind: second.split(' ').next()? })
}

/// File systems that hold nothing of a disk.
const KERNELS: [&str; 9] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "ramfs", "nsfs"];
/// What a sandbox that may mount can make of its own files.
const MADE_INSIDE: [&str; 3] = ["overlay", "fuse", "binfmt_misc"];

/// Whether the mount is a volume, and is held as one.
fn is_volume(mount: &Mount<'_>, volumes: &[Shown]) -> bool {
    let has = |option: &str| mount.options.split(',').any(|found| found == option);
    // By its place, or where a link on the disk moved it, by the end of the path that it has on its file system.
    let is = |shown: &&Shown| {
        shown.at == mount.at || (mount.root != "/" && shown.real.ends_with(mount.root.trim_start_matches('/')))
    };
    let found = volumes.iter().find(is);
    found.is_some_and(|shown| has("nosuid") && has("nodev") && (!shown.read_only || has("ro")))
}

/// Nothing is mounted but what the level and the project have, and of disks only the project's own.
pub(in crate::verify) fn mounts(evidence: &Evidence<'_>) -> Verdict {
    let lines: Option<Vec<Mount<'_>>> = evidence.facts.host.mountinfo.lines().map(mount).collect();
    let mounts = lines.ok_or_else(|| "the mounts cannot be read".to_owned())?;
    let disk = mounts.iter().find(|mount| mount.at == "/").ok_or_else(|| "no root is mounted".to_owned())?;
    if disk.kind != "overlay" && !disk.root.split('/').any(|part| part == evidence.facts.subject.disk) {
        return Err(format!("the root is {} of a {}, not the project's disk", disk.root, disk.kind));
    }
    let places = evidence.facts.subject.level.mounts;
    let own_tmp = evidence.facts.subject.read_only.then_some("/tmp");
    if evidence.facts.subject.read_only && !disk.options.split(',').any(|option| option == "ro") {
        return Err("the root can be written, which was not to be".to_owned());
    }
    let shown: Vec<&Mount<'_>> =
        mounts.iter().filter(|mount| is_volume(mount, &evidence.facts.subject.volumes)).collect();
    // Also what a sandbox that may mount has made of one.
    let of_a_volume = |mount: &&Mount<'_>| {
        shown.iter().any(|volume| volume.device == mount.device && Path::new(mount.root).starts_with(volume.root))
    };
    for mount in mounts.iter().filter(|mount| !of_a_volume(mount)) {
        let is_there = |places: &[&str]| places.iter().chain(&own_tmp).any(|place| is_at(mount.at, place));
        if places.is_some_and(|places| !is_there(places)) {
            return Err(format!("{} is mounted at {}", mount.kind, mount.at));
        }
        let of_the_disk = mount.device == disk.device && mount.root.starts_with(disk.root);
        let kind = mount.kind.split('.').next().unwrap_or_default();
        let harmless = match places {
            Some(_) => KERNELS.contains(&kind) || (mount.at == "/usr" && kind == "overlay"),
            None => KERNELS.contains(&kind) || MADE_INSIDE.contains(&kind),
        };
        let shown = evidence.facts.subject.level.of_the_host.iter().any(|dir| mount.at.starts_with(dir));
        if !of_the_disk && !harmless && !shown {
            return Err(format!("{} of a {} is mounted at {}", mount.root, mount.kind, mount.at));
        }
    }
    Ok(match shown.len() {
        0 => format!("{} mounts, of disks only the project's own", mounts.len()),
        shown => format!("{} mounts, of disks only the project's own and its {shown} volumes", mounts.len()),
    })
}

/// `/proc`, `/sys` and `/dev` have mounts below them; the others stand alone.
fn is_at(at: &str, place: &str) -> bool {
    let below = ["/proc", "/sys", "/dev"].contains(&place);
    at == place || (below && at.strip_prefix(place).is_some_and(|rest| rest.starts_with('/')))
}
