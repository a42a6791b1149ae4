//! Room in a sandbox's own cgroup for those that it will make.
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::slots::PATIENCE;

/// What the sandbox sees of cgroup v2.
const ROOT: &str = "/sys/fs/cgroup";
/// As systemd calls its own: it takes what is above that for the root.
const LEAF: &str = "init.scope";

/// Goes into a leaf and enables all controllers beside it; where there are none, nothing.
pub(super) fn enter() -> io::Result<()> {
    let root = Path::new(ROOT);
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    if controllers.trim().is_empty() {
        return Ok(());
    }
    fs::create_dir(root.join(LEAF))?;
    fs::write(root.join(LEAF).join("cgroup.procs"), "0")?;
    let enable: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    let begun = Instant::now();
    loop {
        match fs::write(root.join("cgroup.subtree_control"), enable.join(" ")) {
            // The porter has ended, or is about to, and counts until it is reaped.
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}
