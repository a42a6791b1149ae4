//! Orders for a running QEMU.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use garth_spec::ByteSize;
use serde_json::{Value, json};

use super::qmp::Qmp;
use crate::error::{Error, ErrorKind};
use crate::machine::Machine;

/// How long memory may take to be written or read: some GiB on a slow disk.
const TRANSFER: Duration = Duration::from_secs(300);

/// In a snapshot's directory: memory and devices, as QEMU streams them.
const STATE: &str = "state";

/// A connection to the monitor of one QEMU.
#[derive(Debug)]
pub struct Control(Qmp);

impl Control {
    pub(crate) fn connect(socket: &Path) -> Result<Self, Error> {
        Qmp::connect(socket).map(Self)
    }

    pub(crate) fn start(&mut self, _machine: &Machine) -> Result<(), Error> {
        self.resume()
    }

    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        self.0.order("stop", json!({})).map(drop)
    }

    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        self.0.order("cont", json!({})).map(drop)
    }

    pub(crate) fn save(&mut self, into: &Path) -> Result<(), Error> {
        let file = File::create_new(into.join(STATE)).map_err(Error::io("make the file for the machine's memory"))?;
        self.prepare()?;
        // By default QEMU spares the network: 1 GiB/s is more than any disk takes.
        self.0.order("migrate-set-parameters", json!({ "max-bandwidth": 1u64 << 30 }))?;
        self.transfer("migrate", &file).map_err(|error| match error.kind() {
            // QEMU says that it failed, and why only to its log.
            ErrorKind::Refused { .. } if is_full(&file) => ErrorKind::NoSpace.into(),
            _ => error,
        })?;
        file.sync_all().map_err(Error::io("write the machine's memory to disk"))
    }

    pub(crate) fn load(&mut self, _machine: &Machine, from: &Path) -> Result<(), Error> {
        let file = File::open(from.join(STATE)).map_err(Error::io("open the machine's memory"))?;
        self.prepare()?;
        self.transfer("migrate-incoming", &file)
    }

    /// What happens to a transfer is told as an event.
    fn prepare(&mut self) -> Result<(), Error> {
        let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        self.0.order("migrate-set-capabilities", events).map(drop)
    }

    fn transfer(&mut self, order: &str, file: &File) -> Result<(), Error> {
        self.0.order_with("getfd", json!({ "fdname": "state" }), Some(file.as_fd()))?;
        self.0.order(order, json!({ "uri": "fd:state" }))?;
        let deadline = Instant::now() + TRANSFER;
        loop {
            let data = self.0.event("MIGRATION", deadline)?;
            match data.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let said = "the transfer of its memory failed".to_owned();
                    return Err(ErrorKind::Refused { order: order.to_owned(), said }.into());
                }
                _ => {}
            }
        }
    }

    pub(crate) fn balloon(&mut self, memory: ByteSize) -> Result<(), Error> {
        self.0.order("balloon", json!({ "value": memory.bytes() })).map(drop)
    }

    pub(crate) fn resize_drive(&mut self, serial: &str, size: ByteSize) -> Result<(), Error> {
        self.0.order("block_resize", json!({ "node-name": serial, "size": size.bytes() })).map(drop)
    }
}

/// Whether the file's filesystem takes no more.
fn is_full(file: &File) -> bool {
    rustix::fs::fstatvfs(file).is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) < 1 << 20)
}
