//! Whether a guest boots here, which the program and the kernel that projects get are tried for: once for each of them in a
//! boot of the host. What was found is in the cache, in `boots/HANDLER.json`.
//!
//! The probe of KVM runs a few instructions; whether a kernel comes up by the same way is more. That it did not is not
//! kept, and so tried again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use garth_spec::{Accelerator, Handler};
use garth_vm::Vmm;
use garth_vm::guest::Artifacts;
use serde::{Deserialize, Serialize};

use super::{Finding, Here, microvm};
use crate::error::Error;

const NAME: &str = "boot";
/// Tells one boot of the host from the next.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// All that could make a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tried {
    /// This boot of the host.
    host: String,
    /// The program with its version.
    vmm: String,
    /// What guests start from.
    guest: String,
    /// The kernel's release, for people.
    release: String,
    accelerator: Accelerator,
}

/// A guest that came up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Booted {
    tried: Tried,
    /// From the program's start to the agent's first answer.
    millis: u64,
}

impl Tried {
    /// What would be tried; `None` where something is missing, which other findings say.
    pub(crate) fn of(handler: Handler, here: &Here<'_>) -> Option<Self> {
        let vmm = Vmm::find(handler).ok()?;
        let guest = Artifacts::find(&here.guests.cache_dir, here.agent).ok()??;
        let accelerator = microvm::accelerator(handler, here).ok()?;
        let host = std::fs::read_to_string(BOOT).ok()?.trim().to_owned();
        let (vmm, release) = (vmm.version().to_owned(), guest.manifest().release.clone());
        Some(Self { host, vmm, guest: guest.key(), release, accelerator })
    }

    /// What is known of it.
    pub(crate) fn known(&self, handler: Handler, cache: &Path) -> Option<Finding> {
        let text = std::fs::read(file(handler, cache)).ok()?;
        let booted: Booted = serde_json::from_slice(&text).ok()?;
        (booted.tried == *self).then(|| self.booted(Duration::from_millis(booted.millis)))
    }

    /// What came of a trial, kept where it was good.
    pub(crate) fn found(self, handler: Handler, cache: &Path, outcome: Result<Duration, Error>) -> Finding {
        let took = match outcome {
            Ok(took) => took,
            Err(error) => {
                let fix = error.suggestion().or_else(|| Some("the daemon's log says more".to_owned()));
                return Finding { name: NAME.to_owned(), ok: false, detail: error.chain(), fix };
            }
        };
        let finding = self.booted(took);
        let millis = took.as_millis().try_into().unwrap_or(u64::MAX);
        if let Err(error) = keep(&file(handler, cache), &Booted { tried: self, millis }) {
            tracing::warn!(%error, "that a guest booted is not remembered");
        }
        finding
    }

    fn booted(&self, took: Duration) -> Finding {
        let Self { vmm, release, .. } = self;
        let seconds = took.as_secs_f64();
        Finding::fine(
            NAME,
            format!("a guest came up in {seconds:.1} s, once since this host's start: Linux {release}, {vmm}"),
        )
    }
}

/// What is known of the handlers that other findings say nothing against.
pub(super) fn known(handler: Handler, here: &Here<'_>) -> Option<Finding> {
    Tried::of(handler, here)?.known(handler, &here.guests.cache_dir)
}

fn file(handler: Handler, cache: &Path) -> PathBuf {
    directory(cache).join(format!("{}.json", handler.to_string().replace('/', "-")))
}

/// Where it is kept, and locked while something is tried.
pub(crate) fn directory(cache: &Path) -> PathBuf {
    cache.join("boots")
}

fn keep(path: &Path, booted: &Booted) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(booted)?)?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const QEMU: Handler = Handler::MicrovmQemu;

    fn tried() -> Tried {
        Tried {
            host: "a boot".to_owned(),
            vmm: "QEMU 7.2".to_owned(),
            guest: "key".to_owned(),
            release: "6.12".to_owned(),
            accelerator: Accelerator::Tcg,
        }
    }

    #[test]
    fn what_booted_is_known_until_something_is_another() {
        let cache = tempfile::tempdir().expect("directory");
        std::fs::create_dir(directory(cache.path())).expect("directory");
        assert!(tried().known(QEMU, cache.path()).is_none());
        let found = tried().found(QEMU, cache.path(), Ok(Duration::from_millis(2340)));
        assert!(found.ok && found.detail.contains("2.3 s") && found.detail.contains("6.12"), "{found:?}");
        assert_eq!(tried().known(QEMU, cache.path()), Some(found));
        let others = [
            Tried { host: "the next boot".to_owned(), ..tried() },
            Tried { vmm: "QEMU 8".to_owned(), ..tried() },
            Tried { guest: "another kernel".to_owned(), ..tried() },
            Tried { accelerator: Accelerator::Kvm, ..tried() },
        ];
        assert!(others.iter().all(|other| other.known(QEMU, cache.path()).is_none()));
        assert!(tried().known(Handler::MicrovmFirecracker, cache.path()).is_none());
    }

    #[test]
    fn a_guest_that_did_not_boot_is_told_and_not_remembered() {
        let cache = tempfile::tempdir().expect("directory");
        std::fs::create_dir(directory(cache.path())).expect("directory");
        let found = tried().found(QEMU, cache.path(), Err(ErrorKind::Machine.into()));
        assert!(!found.ok && found.fix.is_some(), "{found:?}");
        assert!(tried().known(QEMU, cache.path()).is_none());
    }
}
