//! What this machine has for microVMs.

use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use garth_kernel::kvm::Verdict;
use rustix::event::{PollFd, PollFlags, poll};

/// How long the probe may take; it gives itself 250 ms.
const PATIENCE: Duration = Duration::from_secs(5);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_says_nothing_is_no_probe() {
        let truth = std::fs::read("/bin/true").expect("/bin/true");
        assert!(matches!(kvm(&truth), Verdict::KvmBroken(_)));
        assert!(matches!(kvm(b"no program"), Verdict::KvmBroken(_)));
    }
}
