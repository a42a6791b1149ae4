//! What the host sees: by this, and not by what a sandbox says of itself, an attack is judged that a level lets happen.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file's text without space at its end; empty where there is none.
pub fn text(path: impl AsRef<Path>) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned()).unwrap_or_default()
}

/// The words of a line of `/proc/PID/status`.
pub fn status(pid: i32, field: &str) -> Vec<String> {
    let status = text(format!("/proc/{pid}/status"));
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Whether the users that a process is are none that the host or root has.
pub fn is_nobody(pid: i32) -> bool {
    let users: Vec<u32> = status(pid, "Uid").iter().filter_map(|id| id.parse().ok()).collect();
    users.len() == 4 && users.iter().all(|id| *id >= 65_536)
}

/// The process with exactly these arguments, in whatever namespace it is.
pub fn process(arguments: &[&str]) -> Option<i32> {
    let wanted: String = arguments.iter().map(|argument| format!("{argument}\0")).collect();
    let pids =
        fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter()
        .find(|pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
}

/// Whether a mount of the host, as its init and this program see them, has this word.
pub fn has_mount(word: &str) -> bool {
    ["1", "self"].iter().any(|of| text(format!("/proc/{of}/mountinfo")).contains(word))
}

/// The limits in force on a process: every such file of its cgroups and those above.
pub fn limits(pid: i32) -> BTreeMap<PathBuf, String> {
    let files = ["memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.max", "cpuset.cpus"];
    let own = text(format!("/proc/{pid}/cgroup"));
    let paths: Vec<&str> = own.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    let mounts = text("/proc/self/mounts");
    let roots = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let roots = roots.filter(|words| words.get(2).is_some_and(|kind| kind.starts_with("cgroup")));
    let mut found = BTreeMap::new();
    for root in roots.filter_map(|words| words.get(1).map(PathBuf::from)) {
        for path in &paths {
            let of = root.join(path.trim_start_matches('/'));
            let above = of.ancestors().take_while(|directory| directory.starts_with(&root));
            for file in above.flat_map(|directory| files.map(|file| directory.join(file))).filter(|file| file.exists())
            {
                let limit = text(&file);
                found.insert(file, limit);
            }
        }
    }
    found
}

/// Does something that must leave these files of the host as they are.
#[track_caller]
pub fn unchanged<T>(paths: &[&str], doing: impl FnOnce() -> T) -> T {
    let read = || paths.iter().map(|path| (*path, text(path))).collect::<Vec<_>>();
    let before = read();
    let done = doing();
    assert_eq!(read(), before, "the host's have changed");
    done
}
