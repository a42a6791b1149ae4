//! Bringing a cgroup's processes to rest, by `cgroup.freeze` of the v2 tree (cgroup-v2.rst).
//!
//! Not by the freezer of v1: what that holds cannot be killed before it is thawed. Hosts with v1 controllers have the v2
//! tree beside them, and the freezer there needs no controller.
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::error::ErrorKind;

/// How long processes have to come to rest. One that waits in the kernel for another, which rests already, never does: so
/// can a file system that is served inside the sandbox keep it awake.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn freeze(cgroup: &Path) -> Result<(), ErrorKind> {
    let events = File::open(cgroup.join("cgroup.events"))?;
    fs::write(cgroup.join("cgroup.freeze"), "1")?;
    let frozen = wait(&events);
    if !matches!(frozen, Ok(true)) {
        thaw(cgroup)?;
    }
    if frozen? { Ok(()) } else { Err(ErrorKind::Restless { seconds: PATIENCE.as_secs() }) }
}

pub(super) fn thaw(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.freeze"), "0")
}

/// Whether the kernel says in time that all are at rest.
fn wait(events: &File) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut text = [0; 256];
        let read = events.read_at(&mut text, 0)?;
        if says_frozen(&text[..read]) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = left.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        // Readable always; with PRI once it has changed since it was read.
        match poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&left)) {
            Err(Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn says_frozen(events: &[u8]) -> bool {
    events.split(|byte| *byte == b'\n').any(|line| line == b"frozen 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_itself_says_frozen() {
        assert!(says_frozen(b"populated 1\nfrozen 1\n"));
        assert!(!says_frozen(b"populated 1\nfrozen 0\n"));
        assert!(!says_frozen(b"populated 1\nunfrozen 1\n"));
    }
}
