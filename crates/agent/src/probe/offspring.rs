//! What is tried in a process of its own, because it does not come back from it the same, or not at all.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use garth_kernel::attempt::{Call, attempt};
use garth_spec::Observed;
use rustix::io::Errno;

/// The child's side: does its part and ends with the number of the error, 0 for none.
pub(super) fn run(part: &str, argument: Option<&str>) -> u8 {
    let result = match (part, argument) {
        ("unshare", None) => attempt(Call::UnshareUser),
        ("allocate", Some(bytes)) => bytes.parse().map_err(|_| io::ErrorKind::InvalidInput.into()).and_then(hog),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    let errno = |error: io::Error| error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
    result.map_or_else(|error| u8::try_from(errno(error)).unwrap_or(u8::MAX), |()| 0)
}

/// A user namespace is entered by whoever makes it.
pub(super) fn unshare() -> io::Result<Observed> {
    child(&["unshare"])
}

/// Whoever goes over the limit is killed.
pub(super) fn allocate(bytes: u64) -> io::Result<Observed> {
    child(&["allocate", &bytes.to_string()])
}

fn child(arguments: &[&str]) -> io::Result<Observed> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("probe").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status()?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(Observed::Done),
        (Some(errno), _) => Ok(Observed::Errno(errno)),
        _ => Ok(Observed::Killed),
    }
}

/// Touches so much memory that all of it has to be there at once. First of all it becomes the one that the kernel ends.
fn hog(bytes: u64) -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "1000")?;
    const PIECE: usize = 1 << 20;
    let mut pieces = Vec::new();
    for _ in 0..bytes.div_ceil(PIECE as u64) {
        // Not zeroes, which the allocator has without touching a page.
        pieces.push(vec![1u8; PIECE]);
    }
    std::hint::black_box(&pieces);
    Ok(())
}

/// Enough for a thread that waits.
const STACK: usize = 16 << 10;

/// Threads count as processes do, and cost less. All of them end before this returns.
pub(super) fn threads(count: u32) -> io::Result<Observed> {
    let mut waiting = Vec::new();
    let (stop, stopped) = mpsc::channel::<()>();
    let stopped = Arc::new(Mutex::new(stopped));
    let mut refused = None;
    for _ in 0..count {
        let stopped = Arc::clone(&stopped);
        let wait = move || drop(stopped.lock().map(|stopped| stopped.recv()));
        match std::thread::Builder::new().stack_size(STACK).spawn(wait) {
            Ok(thread) => waiting.push(thread),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    drop(stop);
    for thread in waiting {
        let _ = thread.join();
    }
    refused.map_or(Ok(Observed::Done), Err)
}
