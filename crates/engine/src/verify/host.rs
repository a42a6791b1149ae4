//! What the host itself sees of a sandbox. All of it is the kernel's or this daemon's own word.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::Subject;
use super::listeners::Listeners;
use super::machine;
use crate::engine::Inspection;
use crate::error::{Error, ErrorKind};
use crate::local::DiskUse;

/// Bytes of a file of `/proc`; a sandbox that may mount can make its list of mounts long.
const LONGEST: u64 = 1 << 20;

/// What was seen once everything had been tried.
#[derive(Debug, Clone, Default)]
pub(super) struct HostFacts {
    /// `/proc/PID/status` of the init.
    pub(super) status: String,
    pub(super) uid_map: String,
    pub(super) gid_map: String,
    /// `/proc/PID/mountinfo` of the init.
    pub(super) mountinfo: String,
    /// Each kind of namespace, and whether the init's is this daemon's as well.
    pub(super) shared: Vec<(String, bool)>,
    /// What its cgroups hold it to.
    pub(super) memory: Option<u64>,
    pub(super) pids: Option<u64>,
    /// Thousandths of a processor.
    pub(super) cpus: Option<u64>,
    pub(super) disk: Option<DiskUse>,
    /// Processes and threads in it.
    pub(super) processes: Option<u64>,
    /// Times that the kernel killed something in it for memory while it was tried.
    pub(super) oom_kills: u64,
    /// Who connected to this host's listeners.
    pub(super) connected: Vec<SocketAddr>,
    /// How long the sandbox has been running.
    pub(super) age: Option<Duration>,
    /// What each descriptor of the init is, as the links in `/proc/PID/fd` say it.
    pub(super) descriptors: Vec<String>,
    /// `/proc/sys/kernel/random/boot_id` of this host.
    pub(super) boot_id: String,
    /// `/proc/version` of this host.
    pub(super) version: String,
    /// `/proc/PID/stat` of this daemon and of the init, by path.
    pub(super) processes_of_ours: Vec<(String, String)>,
}

impl HostFacts {
    /// Looks at the sandbox. What cannot be read is left empty, and fails the checks that need it.
    pub(super) fn read(
        subject: &Subject,
        listeners: Listeners,
        before: &Inspection,
        after: &Inspection,
    ) -> Result<Self, Error> {
        let of_init = |file: &str| read(Path::new(&format!("/proc/{}/{file}", subject.pid)));
        let status = of_init("status").ok_or(ErrorKind::Sandbox)?;
        let limits = Cgroups::of(&of_init("cgroup").unwrap_or_default());
        let kills = |inspection: &Inspection| inspection.usage.map_or(0, |usage| usage.oom_kills);
        let age = subject.started_at.map(|at| Timestamp::now().duration_since(at).unsigned_abs());
        Ok(Self {
            status,
            uid_map: of_init("uid_map").unwrap_or_default(),
            gid_map: of_init("gid_map").unwrap_or_default(),
            mountinfo: of_init("mountinfo").unwrap_or_default(),
            shared: shared(subject.pid),
            memory: limits.memory(),
            pids: limits.pids(),
            cpus: limits.cpus(),
            disk: after.disk,
            processes: after.usage.map(|usage| usage.pids),
            oom_kills: kills(after).saturating_sub(kills(before)),
            connected: listeners.connected(),
            age,
            descriptors: descriptors(subject.pid),
            boot_id: read(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default(),
            version: read(Path::new("/proc/version")).unwrap_or_default(),
            processes_of_ours: machine::of_ours(subject)
                .map(|path| {
                    let stat = read(Path::new(&path)).unwrap_or_default();
                    (path, stat)
                })
                .to_vec(),
        })
    }
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Compares by what the links say: the kind and the inode of each namespace.
fn shared(pid: i32) -> Vec<(String, bool)> {
    let kinds = ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time"];
    let link = |of: &str, kind: &str| fs::read_link(format!("/proc/{of}/ns/{kind}")).ok();
    let pid = pid.to_string();
    let both = kinds.into_iter().filter_map(|kind| Some((kind, link(&pid, kind)?, link("self", kind)?)));
    both.map(|(kind, init, own)| (kind.to_owned(), init == own)).collect()
}

fn descriptors(pid: i32) -> Vec<String> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let link = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    all.filter_map(link).map(|link| link.to_string_lossy().into_owned()).collect()
}

/// The directories of the cgroups that a process is in.
#[derive(Debug)]
struct Cgroups(Vec<(String, PathBuf)>);

impl Cgroups {
    /// From `/proc/PID/cgroup` and this daemon's mounts.
    fn of(cgroup: &str) -> Self {
        let mounts = read(Path::new("/proc/self/mounts")).unwrap_or_default();
        let mut found = Vec::new();
        for line in mounts.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [_, mount, kind @ ("cgroup" | "cgroup2"), options, ..] = words[..] else { continue };
            for own in cgroup.lines() {
                let mut parts = own.splitn(3, ':').skip(1);
                let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
                let here = match kind {
                    "cgroup2" => controllers.is_empty(),
                    _ => {
                        !controllers.is_empty()
                            && controllers.split(',').all(|name| options.split(',').any(|o| o == name))
                    }
                };
                if here {
                    let directory = Path::new(mount).join(path.trim_start_matches('/'));
                    found.extend(controllers.split(',').map(|name| (name.to_owned(), directory.clone())));
                }
            }
        }
        Self(found)
    }

    /// The first of these files that there is and that says a limit, in the cgroup itself or in one above it: an init of
    /// an image's own makes itself one below the one that it was given.
    fn file(&self, files: &[(&str, &str)]) -> Option<String> {
        let limit = |text: &String| !text.starts_with("max") && !text.starts_with('-');
        files.iter().find_map(|(controller, file)| {
            let (_, directory) = self.0.iter().find(|(name, _)| name == controller)?;
            directory.ancestors().find_map(|directory| read(&directory.join(file)).filter(limit))
        })
    }

    fn memory(&self) -> Option<u64> {
        self.file(&[("memory", "memory.limit_in_bytes"), ("", "memory.max")])?.trim().parse().ok()
    }

    fn pids(&self) -> Option<u64> {
        self.file(&[("pids", "pids.max"), ("", "pids.max")])?.trim().parse().ok()
    }

    fn cpus(&self) -> Option<u64> {
        let (quota, period) = match self.file(&[("cpu", "cpu.cfs_quota_us")]) {
            Some(quota) => (quota, self.file(&[("cpu", "cpu.cfs_period_us")])?),
            None => {
                let both = self.file(&[("", "cpu.max")])?;
                let (quota, period) = both.trim().split_once(' ')?;
                (quota.to_owned(), period.to_owned())
            }
        };
        let (quota, period): (u64, u64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
        (quota * 1000).checked_div(period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_ours_is_shared_with_ourselves() {
        let shared = shared(i32::try_from(std::process::id()).expect("a pid"));
        assert!(shared.len() >= 7 && shared.iter().all(|(_, same)| *same), "{shared:?}");
    }

    #[test]
    fn cgroups_are_found_by_where_they_are_mounted() {
        let own = read(Path::new("/proc/self/cgroup")).expect("cgroup");
        let found = Cgroups::of(&own);
        assert!(found.0.iter().all(|(_, directory)| directory.is_dir()), "{found:?}");
    }
}
