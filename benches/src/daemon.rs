use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::garth::Garth;

/// The daemon that is measured, as the kernel shows it.
#[derive(Debug)]
pub struct Daemon {
    pid: u32,
    data_dir: PathBuf,
    /// Part of the name of all that it has on the machine.
    tag: String,
}

/// What the daemon costs when nothing runs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Idle {
    pub pss_kib: f64,
    pub wakeups_per_second: f64,
}

/// The memory of running sandboxes, in KiB of proportional set size.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Pss {
    /// What runs inside: the agents.
    pub agents: f64,
    /// Beside sandboxes of mapped users.
    pub keepers: f64,
    /// What the sandboxes were cloned from, and will be again.
    pub spawners: f64,
    pub daemon: f64,
}

/// Things that a leak would add to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Traces {
    pub mounts: usize,
    pub cgroups: usize,
    pub loop_devices: usize,
    pub links: usize,
    pub processes: usize,
    /// Open in the daemon.
    pub descriptors: usize,
    /// In the data directory, without what is on the disks and the disks that are kept ready for later.
    pub files: usize,
}

impl Daemon {
    /// Needs a running sandbox of it, whose cgroup tells the tag.
    pub async fn of(garth: &Garth) -> Result<Self> {
        let garth_api::Place::Socket(socket) = garth.client().place() else { bail!("the daemon is elsewhere") };
        let data_dir = socket.parent().context("a socket is in a directory")?.to_owned();
        let pid = std::fs::read_to_string(data_dir.join("garth.pid"))?.trim().parse()?;
        garth.keep_running().await?;
        let init = garth.init(0).await?;
        let tag = slot(init).and_then(|(tag, _)| tag.strip_prefix("garth-").map(str::to_owned));
        Ok(Self { pid, data_dir, tag: tag.context("a sandbox is in no cgroup of Garth's")? })
    }

    /// Over ten seconds in which nobody asks anything of it.
    pub fn idle(&self) -> Result<Idle> {
        const SECONDS: u64 = 10;
        // Threads of tokio's that had something to do end ten seconds later, each with a wake-up.
        std::thread::sleep(Duration::from_secs(12));
        let before = self.wakeups()?;
        std::thread::sleep(Duration::from_secs(SECONDS));
        let woken = self.wakeups()?.iter().map(|(thread, count)| count - before.get(thread).unwrap_or(&0)).sum::<u64>();
        Ok(Idle { pss_kib: pss_kib(self.pid), wakeups_per_second: woken as f64 / SECONDS as f64 })
    }

    /// Of these inits' sandboxes, and of the daemon.
    pub fn pss(&self, inits: &[u32]) -> Result<Pss> {
        let slots: HashSet<_> = inits.iter().filter_map(|init| slot(*init)).collect();
        // On cgroup v2 a slot's spawner is not in the slot's cgroup.
        let parents: HashSet<_> = inits.iter().filter_map(|init| status(*init)?.parent).collect();
        let mut sum = Pss { daemon: pss_kib(self.pid), ..Pss::default() };
        for pid in processes()? {
            let beside = parents.contains(&pid) && is_agent(pid);
            if pid == self.pid || !(beside || slot(pid).is_some_and(|slot| slots.contains(&slot))) {
                continue;
            }
            let Some(status) = status(pid) else { continue };
            let sum = match () {
                () if status.is_inside => &mut sum.agents,
                () if status.is_mapped => &mut sum.keepers,
                () => &mut sum.spawners,
            };
            *sum += pss_kib(pid);
        }
        Ok(sum)
    }

    pub fn traces(&self) -> Result<Traces> {
        let dir = self.data_dir.to_string_lossy();
        let of_proc = Path::new("/proc").join(self.pid.to_string());
        let mounts = std::fs::read_to_string(of_proc.join("mountinfo"))?;
        let is_ours = |e: &std::fs::DirEntry| {
            let file = std::fs::read_to_string(e.path().join("loop/backing_file"));
            file.is_ok_and(|file| file.contains(&*dir))
        };
        let has_tag = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().contains(&self.tag);
        let mine = format!("garth-{}", self.tag);
        // The benchmark's own mounts lack one of the hierarchies, for the peers.
        let hierarchies = of_proc.join("root/sys/fs/cgroup");
        let cgroups = std::iter::once(hierarchies.join(&mine))
            .chain(entries(&hierarchies).map(|hierarchy| hierarchy.path().join(&mine)));
        Ok(Traces {
            mounts: mounts.lines().filter(|line| line.contains(&*dir)).count(),
            cgroups: cgroups.map(|cgroup| directories(&cgroup)).sum(),
            loop_devices: entries("/sys/block".as_ref()).filter(is_ours).count(),
            links: entries("/sys/class/net".as_ref()).filter(has_tag).count(),
            processes: processes()?.filter(|pid| slot(*pid).is_some_and(|(parent, _)| parent == mine)).count(),
            descriptors: entries(&of_proc.join("fd")).count(),
            files: files(&self.data_dir, 2),
        })
    }

    /// So far, of each thread.
    fn wakeups(&self) -> Result<HashMap<OsString, u64>> {
        let tasks = Path::new("/proc").join(self.pid.to_string()).join("task");
        let switches = |task: std::fs::DirEntry| {
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            Some((task.file_name(), count.trim().parse().ok()?))
        };
        Ok(std::fs::read_dir(tasks)?.flatten().filter_map(switches).collect())
    }
}

/// What `/proc/PID/status` says.
struct Status {
    parent: Option<u32>,
    /// In a pid namespace below ours.
    is_inside: bool,
    /// Not root on the host.
    is_mapped: bool,
}

fn status(pid: u32) -> Option<Status> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    Some(Status {
        parent: field("PPid:").parse().ok(),
        is_inside: field("NSpid:").split_whitespace().count() > 1,
        is_mapped: field("Uid:").split_whitespace().next() != Some("0"),
    })
}

/// The daemon's part and the slot's of the name of the cgroup that a process is in.
fn slot(pid: u32) -> Option<(String, String)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| {
        let mut names = line.split('/').skip_while(|name| !name.starts_with("garth-"));
        Some((names.next()?.to_owned(), names.next()?.to_owned()))
    })
}

fn is_agent(pid: u32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.to_string_lossy().contains("garth-agent"))
}

/// 0 for what is gone.
pub fn pss_kib(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    pss.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0.0)
}

fn processes() -> Result<impl Iterator<Item = u32>> {
    Ok(std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

fn entries(dir: &Path) -> impl Iterator<Item = std::fs::DirEntry> {
    std::fs::read_dir(dir).into_iter().flatten().flatten()
}

fn directories(dir: &Path) -> usize {
    entries(dir).filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| 1 + directories(&e.path())).sum()
}

fn files(dir: &Path, depth: usize) -> usize {
    let below = |e: std::fs::DirEntry| match e.file_type() {
        Ok(kind) if kind.is_dir() && depth > 0 => 1 + files(&e.path(), depth - 1),
        _ => 1,
    };
    entries(dir).filter(|e| e.file_name() != "spares").map(below).sum()
}
