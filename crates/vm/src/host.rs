//! What this machine has for microVMs.

use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use garth_kernel::kvm::Verdict;
use rustix::event::{PollFd, PollFlags, poll};

/// How long the probe may take; it gives itself 250 ms.
const PATIENCE: Duration = Duration::from_secs(5);

/// The program that a machine's emulator has in Debian and its kin.
const QEMU: &str = "qemu-system-x86_64";

/// An installed QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub path: PathBuf,
    /// What it says of itself, as `7.2.22`.
    pub version: String,
}

/// The probe's process: ended with this, whatever it does.
struct Probe(Child);

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether KVM works, tried by the agent's program (`garth-agent kvm-probe`) in a process of its own: what it meets in
/// the kernel, this process does not.
pub fn kvm(agent: &[u8]) -> Verdict {
    ask(agent).unwrap_or_else(|error| Verdict::KvmBroken(format!("the probe did not answer: {error}")))
}

fn ask(agent: &[u8]) -> std::io::Result<Verdict> {
    let program = garth_kernel::memfd::sealed("garth-agent", agent)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.arg("kvm-probe").env_clear().current_dir("/");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut probe = Probe(child);
    let mut stdout = probe.0.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    let (mut line, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    let mut buffer = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.try_into().map_err(|_| std::io::ErrorKind::InvalidInput)?;
        if poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&left))? == 0 {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        match stdout.read(&mut buffer)? {
            0 => return serde_json::from_slice(&line).map_err(Into::into),
            length => line.extend_from_slice(&buffer[..length]),
        }
    }
}

/// The QEMU in `PATH`; none when it is not there or does not run.
pub fn qemu() -> Option<Qemu> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).filter(|place| place.is_absolute());
    let path = places.find_map(|place| Some(place.join(QEMU)).filter(|path| path.is_file()))?;
    let version = version(&path)?;
    Some(Qemu { path, version })
}

fn version(path: &Path) -> Option<String> {
    let output = Command::new(path).arg("--version").env_clear().stdin(Stdio::null()).output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned)
}

fn parse(said: &str) -> Option<&str> {
    said.strip_prefix("QEMU emulator version ")?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_what_stands_before_the_distributions() {
        let said = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright";
        assert_eq!(parse(said), Some("7.2.22"));
        assert_eq!(parse("usage: something else"), None);
    }

    #[test]
    fn a_program_that_says_nothing_is_no_probe() {
        let truth = std::fs::read("/bin/true").expect("/bin/true");
        assert!(matches!(kvm(&truth), Verdict::KvmBroken(_)));
        assert!(matches!(kvm(b"no program"), Verdict::KvmBroken(_)));
    }
}
