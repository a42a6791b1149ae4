//! What a daemon has on the host besides files, found by its data directory and by its tag.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Mounts, loop devices, cgroups, interfaces, rules and processes of the daemons of this data directory.
pub fn of(data_dir: &Path) -> Vec<String> {
    let dir = data_dir.to_str().expect("UTF-8");
    let mut traces = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    traces.extend(mounts.lines().filter(|line| line.contains(dir)).map(|line| format!("mount {line}")));
    traces.extend(loops(dir).into_iter().map(|device| format!("loop {device}")));
    let Some(tag) = tag(data_dir) else { return traces };
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/cpu"] {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(&tag) {
                traces.push(format!("cgroup {}", entry.path().display()));
            }
        }
    }
    for entry in fs::read_dir("/sys/class/net").expect("interfaces").flatten() {
        if entry.file_name().to_string_lossy().contains(&tag) {
            traces.push(format!("interface {}", entry.path().display()));
        }
    }
    let tables = Command::new("nft").args(["list", "tables"]).output();
    let tables = tables.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    traces.extend(tables.lines().filter(|line| line.contains(&tag)).map(str::to_owned));
    let run = fs::read_dir(data_dir.join("run")).into_iter().flatten().flatten();
    traces.extend(run.map(|entry| format!("directory {}", entry.path().display())));
    traces
}

/// The daemon's tag, as it is in the name of its gateway or of its cgroups.
fn tag(data_dir: &Path) -> Option<String> {
    let log = fs::read_to_string(data_dir.join("garth.log")).ok()?;
    let (_, rest) = log.split_once("\"tag\":\"")?;
    rest.split_once('"').map(|(tag, _)| tag.to_owned())
}

fn loops(dir: &str) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let backed = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("loop/backing_file")).is_ok_and(|file| file.contains(dir))
    };
    devices.filter(backed).map(|entry| format!("/dev/{}", entry.file_name().display())).collect()
}

/// Takes away what a failed test left, as far as that goes.
pub fn clear(data_dir: &Path) {
    let _ = Command::new("umount").arg("-l").arg(data_dir.join("pool")).status();
    for device in loops(data_dir.to_str().unwrap_or("/nowhere")) {
        let _ = Command::new("losetup").args(["-d", &device]).status();
    }
}
