//! Orders for a running Firecracker.

use std::path::Path;
use std::time::Duration;

use garth_spec::ByteSize;
use serde_json::Value;

use super::{API, MEMORY, STATE, requests};
use crate::error::Error;
use crate::http::{Api, PATIENCE, Request};
use crate::machine::{DriveRate, Machine};
use crate::snapshot::{self, Snapshot};
use crate::socket::Directory;
use crate::vmm::Place;

/// How long memory may take to be written: some GiB on a slow disk.
const TRANSFER: Duration = Duration::from_secs(300);

/// The way to one Firecracker.
#[derive(Debug)]
pub struct Control {
    api: Api,
    own: Directory,
}

impl Control {
    /// Waits until it takes orders.
    pub(crate) fn connect(place: &Place) -> Result<Self, Error> {
        let open = || Directory::open(&place.own).map_err(Error::io("open the machine's directory"));
        let (api, own) = (Api::Own(open()?, API), open()?);
        api.await_listener()?;
        Ok(Self { api, own })
    }

    pub(crate) fn start(&mut self, machine: &Machine) -> Result<(), Error> {
        requests::boot(machine).iter().try_for_each(|request| self.order(request))
    }

    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        self.order(&requests::state("Paused"))
    }

    /// One that runs is told nothing: it would hold back all that goes to the guest by vsock until that answered an event,
    /// which it has sent a paused one alone (`Vsock::kick`, 1.16).
    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        let found = self.api.order(&Request::get("/"), PATIENCE)?;
        match found.get("state").and_then(Value::as_str) {
            Some("Running") => Ok(()),
            _ => self.order(&requests::state("Resumed")),
        }
    }

    pub(crate) fn save(&mut self, _machine: &Machine, into: &Path) -> Result<(), Error> {
        let saved = self.api.order(&requests::save(), TRANSFER);
        let saved = saved.map(drop).map_err(|error| snapshot::or_no_space(error, self.own.fd()));
        let taken =
            saved.and_then(|()| [STATE, MEMORY].iter().try_for_each(|name| snapshot::take(&self.own, name, into)));
        taken.inspect_err(|_| [STATE, MEMORY].iter().for_each(|name| self.own.remove(name)))
    }

    pub(crate) fn load(&mut self, _from: &Snapshot) -> Result<(), Error> {
        self.api.order(&requests::load(), TRANSFER).map(drop)
    }

    pub(crate) fn balloon(&mut self, whole: ByteSize, memory: ByteSize) -> Result<(), Error> {
        let taken = whole.bytes().saturating_sub(memory.bytes()) >> 20;
        self.order(&requests::balloon(taken))
    }

    pub(crate) fn set_drive_rate(&mut self, serial: &str, rate: DriveRate) -> Result<(), Error> {
        self.order(&requests::rate(serial, rate))
    }

    pub(crate) fn resize_drive(&mut self, serial: &str, _size: ByteSize) -> Result<(), Error> {
        self.order(&requests::reopen(serial))
    }

    fn order(&self, request: &Request) -> Result<(), Error> {
        self.api.order(request, PATIENCE).map(drop)
    }
}
