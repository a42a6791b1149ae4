//! The directories of the host that a machine is served, each by a program in a jail of its own.

use std::collections::BTreeMap;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use garth_runtime::Sandbox;
use garth_runtime::jail::{Given, Jail};
use garth_spec::{GuestVolume, Limits, Volume};
use garth_vm::{Place, VirtioFs};

use super::failure::Explain as _;
use super::launch::plan;
use super::order::volume_at;
use crate::error::{Error, ErrorKind};

/// What a program that serves one may use beside the guest's memory.
const OVERHEAD: u64 = 32 << 20;

/// What a machine calls the share of this number.
pub(super) fn tag(number: usize) -> String {
    format!("volume{number}")
}

/// What the agent in a guest is told of a project's volumes.
pub(super) fn told(volumes: &BTreeMap<String, Volume>) -> Vec<GuestVolume> {
    let told = volumes.iter().enumerate();
    told.map(|(number, (at, volume))| GuestVolume { tag: tag(number), at: at.clone(), read_only: volume.read_only })
        .collect()
}

/// Whether there is what serves them.
pub(super) fn check(volumes: &BTreeMap<String, Volume>) -> Result<(), Error> {
    if volumes.is_empty() {
        return Ok(());
    }
    VirtioFs::find().map(drop).map_err(|error| {
        let hint = error.hint().map(str::to_owned);
        Error::because(ErrorKind::Volume, error).maybe_hint(hint)
    })
}

/// The sockets between those that serve and the one that is served: they are there before either program is.
pub(super) struct Shares {
    listeners: Vec<UnixListener>,
    /// The hypervisor's ends, where it is given them open.
    ends: Vec<UnixStream>,
}

impl Shares {
    /// Whose hypervisor is given its ends open.
    pub(super) fn connected(place: &Place, count: usize) -> io::Result<Self> {
        let pair = |number| {
            let socket = place.share(number);
            let listener = UnixListener::bind(&socket)?;
            let stream = UnixStream::connect(&socket)?;
            // Nobody else comes.
            std::fs::remove_file(socket)?;
            Ok((listener, stream))
        };
        let (listeners, ends) = (0..count).map(pair).collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
        Ok(Self { listeners, ends })
    }

    /// Whose hypervisor looks for them by name: who serves takes one connection and no more.
    pub(super) fn named(place: &Place, jail: &Jail, count: usize) -> io::Result<Self> {
        let listen = |number| {
            let socket = place.share(number);
            let listener = UnixListener::bind(&socket)?;
            jail.give(&socket)?;
            Ok(listener)
        };
        Ok(Self { listeners: (0..count).map(listen).collect::<io::Result<_>>()?, ends: Vec::new() })
    }

    /// The hypervisor's end.
    pub(super) fn fd(&self, number: usize) -> Result<BorrowedFd<'_>, ErrorKind> {
        self.ends.get(number).map(UnixStream::as_fd).ok_or(ErrorKind::Volume)
    }

    /// Starts what serves them, beside the hypervisor.
    pub(super) fn serve(
        &self,
        sandbox: &Sandbox,
        volumes: &BTreeMap<String, Volume>,
        hidden: &Path,
        said: &PipeWriter,
    ) -> Result<(), Error> {
        let doing = |error: io::Error| Error::because(ErrorKind::Volume, error);
        for (listener, (at, volume)) in self.listeners.iter().zip(volumes) {
            let plan = plan(VirtioFs::find().explain()?.launch(), Limits::default(), None);
            let errors = said.try_clone().map_err(doing)?.into();
            let given = Given { fds: &[listener.as_fd()], netns: None, output: None, errors };
            sandbox.serve(&plan, &volume_at(at, volume), hidden, given).explain()?;
        }
        Ok(())
    }
}

/// What all of a machine's take beside it.
pub(super) fn overhead(count: usize) -> u64 {
    OVERHEAD.saturating_mul(count as u64)
}
