//! Whether `/dev/kvm` runs a guest at the processor's speed.
//!
//! That the device can be opened says little: there are hosts that emulate every instruction behind it, and hosts whose
//! machines start and never get anywhere, both without any error. So a few instructions that every kernel needs are run
//! in 64-bit mode against the clock: port output, rdtsc, cpuid, a write of cr3, a read and a write of EFER, a loop, hlt.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

#[cfg(target_arch = "x86_64")]
mod machine;
#[cfg(target_arch = "x86_64")]
mod timer;

/// What `/dev/kvm` is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The guest ran to its end in time.
    KvmOk,
    /// The guest runs, but its instructions are emulated.
    KvmEmulated {
        /// Millions of them in a second; a processor does thousands.
        mips: f64,
    },
    /// The guest does not run.
    KvmBroken(String),
    /// There is no such device.
    NoKvm,
    /// The device is there, and this process may not open it.
    NoPermission,
}

/// How long the guest may take: 9 ms have been seen where KVM itself runs in an emulated machine.
const PATIENCE: Duration = Duration::from_millis(250);

/// Runs the guest. Only a process of its own calls this: it lowers its limits for good and handles SIGALRM.
pub fn probe() -> Verdict {
    match confine() {
        Ok(()) => run(),
        Err(error) => Verdict::KvmBroken(format!("the probe could not limit itself: {error}")),
    }
}

fn confine() -> io::Result<()> {
    let limits = [(Resource::Core, 0), (Resource::Cpu, 2), (Resource::Nofile, 32), (Resource::As, 1 << 30)];
    for (resource, limit) in limits {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
fn run() -> Verdict {
    Verdict::KvmBroken("the probe knows x86-64 only".to_owned())
}

#[cfg(target_arch = "x86_64")]
fn run() -> Verdict {
    let mut machine = match machine::Machine::new() {
        Ok(machine) => machine,
        Err(failure) => return refused(&failure),
    };
    let begun = Instant::now();
    if let Err(error) = timer::interrupt_after(PATIENCE) {
        return Verdict::KvmBroken(format!("the probe has no timer: {error}"));
    }
    let mut said = Vec::new();
    loop {
        match machine.run() {
            Ok(machine::Exit::Output(byte)) => said.push(byte),
            Ok(machine::Exit::Halted) => return judge(&said),
            Ok(machine::Exit::Other(reason)) => {
                return Verdict::KvmBroken(format!("the guest stopped for reason {reason} after {said:?}"));
            }
            Err(Errno::INTR) if begun.elapsed() < PATIENCE => {}
            Err(Errno::INTR) => return late(&machine, &said, begun.elapsed()),
            Err(error) => return Verdict::KvmBroken(format!("KVM_RUN: {error}")),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn refused(failure: &machine::Failure) -> Verdict {
    match failure.error {
        Errno::NOENT | Errno::NODEV | Errno::NXIO if failure.call == machine::OPEN => Verdict::NoKvm,
        Errno::ACCESS | Errno::PERM if failure.call == machine::OPEN => Verdict::NoPermission,
        error => Verdict::KvmBroken(format!("{}: {error}", failure.call)),
    }
}

#[cfg(target_arch = "x86_64")]
fn judge(said: &[u8]) -> Verdict {
    match said {
        machine::WORDS => Verdict::KvmOk,
        other => Verdict::KvmBroken(format!("the guest halted after {other:?}")),
    }
}

/// The time is over: how far the loop got is how fast the guest is.
#[cfg(target_arch = "x86_64")]
fn late(machine: &machine::Machine, said: &[u8], elapsed: Duration) -> Verdict {
    let instructions = match machine.loops_left() {
        // Before the loop the register holds other things.
        Ok(left) if said == [machine::WORDS[0]] && left < machine::LOOPS => 2 * (machine::LOOPS - left),
        _ => return Verdict::KvmBroken(format!("the guest got nowhere in {elapsed:?}: it said {said:?}")),
    };
    let mips = f64::from(instructions) / elapsed.as_secs_f64() / 1e6;
    Verdict::KvmEmulated { mips: (mips * 10.0).round() / 10.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_one_line_of_json() {
        let check = |verdict: Verdict, line: &str| {
            assert_eq!(serde_json::to_string(&verdict).expect("JSON"), line);
            assert_eq!(serde_json::from_str::<Verdict>(line).expect("verdict"), verdict);
        };
        check(Verdict::KvmOk, r#""kvm_ok""#);
        check(Verdict::KvmEmulated { mips: 1.4 }, r#"{"kvm_emulated":{"mips":1.4}}"#);
        check(Verdict::KvmBroken("it".into()), r#"{"kvm_broken":"it"}"#);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_device_that_is_not_there_is_told_from_one_that_fails() {
        let of = |call, error| refused(&machine::Failure { call, error });
        assert_eq!(of(machine::OPEN, Errno::NOENT), Verdict::NoKvm);
        assert_eq!(of(machine::OPEN, Errno::ACCESS), Verdict::NoPermission);
        assert!(matches!(of("KVM_CREATE_VM", Errno::NOENT), Verdict::KvmBroken(_)));
        assert!(matches!(of(machine::OPEN, Errno::BUSY), Verdict::KvmBroken(_)));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_guest_that_skips_a_word_is_broken() {
        assert_eq!(judge(b"ab"), Verdict::KvmOk);
        assert!(matches!(judge(b"a"), Verdict::KvmBroken(_)));
    }
}
