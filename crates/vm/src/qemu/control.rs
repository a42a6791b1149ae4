//! Orders for a running QEMU.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use garth_spec::ByteSize;
use serde_json::{Value, json};

use super::qmp::Qmp;
use crate::error::{Error, ErrorKind};
use crate::machine::{DriveRate, Machine};
use crate::snapshot::{self, Snapshot};

/// How long memory may take to be written or read: some GiB on a slow disk.
const TRANSFER: Duration = Duration::from_secs(300);

/// How long QEMU may take from the end of a transfer to where it lets the machine go on.
const SETTLING: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// In a snapshot's directory: memory and devices, as QEMU streams them.
const STATE: &str = "state";

/// A connection to the monitor of one QEMU.
#[derive(Debug)]
pub struct Control(Qmp);

impl Control {
    pub(crate) fn connect(socket: &Path) -> Result<Self, Error> {
        Qmp::connect(socket).map(Self)
    }

    pub(crate) fn start(&mut self, machine: &Machine) -> Result<(), Error> {
        let held = machine.drives.iter().filter(|drive| drive.rate != DriveRate::default());
        for drive in held {
            self.set_drive_rate(&drive.serial, drive.rate)?;
        }
        self.resume()
    }

    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        self.0.order("stop", json!({})).map(drop)
    }

    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        self.0.order("cont", json!({})).map(drop)
    }

    pub(crate) fn save(&mut self, _machine: &Machine, into: &Path) -> Result<(), Error> {
        let file = File::create_new(into.join(STATE)).map_err(Error::io("make the file for the machine's memory"))?;
        self.prepare()?;
        // By default QEMU spares the network: 1 GiB/s is more than any disk takes.
        self.0.order("migrate-set-parameters", json!({ "max-bandwidth": 1u64 << 30 }))?;
        // QEMU says that it failed, and why only to its log.
        self.transfer("migrate", &file).map_err(|error| snapshot::or_no_space(error, &file))
    }

    pub(crate) fn load(&mut self, from: &Snapshot) -> Result<(), Error> {
        let file = File::open(from.directory().join(STATE)).map_err(Error::io("open the machine's memory"))?;
        self.prepare()?;
        // By default it tells the wire the addresses of the machine that was saved.
        self.0.order("migrate-set-parameters", json!({ "announce-rounds": 0 }))?;
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
        let outcome = self.await_transfer(order);
        self.settle()?;
        outcome
    }

    fn await_transfer(&mut self, order: &str) -> Result<(), Error> {
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

    /// QEMU tells the end of a transfer, good or bad, before it lets a machine go on. No event tells when it does.
    fn settle(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + SETTLING;
        loop {
            let status = self.0.order("query-status", json!({}))?;
            match status.get("status").and_then(Value::as_str) {
                Some("finish-migrate" | "inmigrate") if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
                Some("finish-migrate" | "inmigrate") => return Err(Error::silent("the end of a transfer")),
                _ => return Ok(()),
            }
        }
    }

    pub(crate) fn balloon(&mut self, _whole: ByteSize, memory: ByteSize) -> Result<(), Error> {
        self.0.order("balloon", json!({ "value": memory.bytes() })).map(drop)
    }

    pub(crate) fn set_drive_rate(&mut self, serial: &str, rate: DriveRate) -> Result<(), Error> {
        let (bytes, operations) = (rate.bytes.unwrap_or(0), rate.operations.unwrap_or(0));
        // All of these must be named; 0 is as fast as it goes.
        let rates = json!({
            "id": format!("disk-{serial}"),
            "bps": 0, "bps_rd": bytes, "bps_wr": bytes,
            "iops": 0, "iops_rd": operations, "iops_wr": operations,
        });
        self.0.order("block_set_io_throttle", rates).map(drop)
    }

    pub(crate) fn resize_drive(&mut self, serial: &str, size: ByteSize) -> Result<(), Error> {
        self.0.order("block_resize", json!({ "node-name": serial, "size": size.bytes() })).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::mock::machine;

    #[test]
    fn a_save_ends_when_the_machine_can_go_on() {
        let directory = tempfile::tempdir().expect("directory");
        let socket = directory.path().join("control.sock");
        let listener = UnixListener::bind(&socket).expect("listen");
        let qemu = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let lines = BufReader::new(stream.try_clone().expect("clone")).lines();
            stream.write_all(b"{\"QMP\": {}}\n").expect("greet");
            let mut statuses = ["postmigrate", "finish-migrate", "finish-migrate"].to_vec();
            for line in lines.map_while(Result::ok) {
                let order: Value = serde_json::from_str(&line).expect("JSON");
                let answer = match order["execute"].as_str() {
                    Some("migrate") => {
                        let ended = json!({ "event": "MIGRATION", "data": { "status": "completed" } });
                        format!("{}\n{ended}\n", json!({ "return": {} }))
                    }
                    Some("query-status") => {
                        let status = statuses.pop().expect("asked until it may go on and no longer");
                        format!("{}\n", json!({ "return": { "status": status } }))
                    }
                    _ => format!("{}\n", json!({ "return": {} })),
                };
                stream.write_all(answer.as_bytes()).expect("answer");
            }
            statuses
        });
        let mut control = Control::connect(&socket).expect("connected");
        control.save(&machine(), directory.path()).expect("saved");
        drop(control);
        assert_eq!(qemu.join().expect("answered"), Vec::<&str>::new());
    }
}
