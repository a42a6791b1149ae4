//! Orders for a running Cloud Hypervisor.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use garth_spec::ByteSize;
use serde_json::{Value, json};

use super::{CONFIG, FILES, config};
use crate::error::Error;
use crate::http::{Api, PATIENCE, Request};
use crate::inside;
use crate::machine::{DriveAccess, DriveRate, Machine};
use crate::snapshot::{self, Snapshot};
use crate::socket::Directory;
use crate::vmm::Place;

/// How long memory may take to be written or read: some GiB on a slow disk.
const TRANSFER: Duration = Duration::from_secs(300);

/// In its own directory, while it saves.
const SAVED: &str = "saved";
/// Longer than any configuration of ours.
const LONGEST_CONFIG: u64 = 1 << 20;

/// The way to one Cloud Hypervisor.
#[derive(Debug)]
pub struct Control {
    api: Api,
    own: Directory,
}

impl Control {
    pub(crate) fn connect(place: &Place) -> Result<Self, Error> {
        let own = Directory::open(&place.own).map_err(Error::io("open the machine's directory"))?;
        let control = Self { api: Api::Trusted(place.control()), own };
        control.order(&Request::get("/api/v1/vmm.ping"))?;
        Ok(control)
    }

    pub(crate) fn start(&mut self, machine: &Machine) -> Result<(), Error> {
        self.order(&Request::put("/api/v1/vm.create", config::of(machine)))?;
        self.order(&Request::put_nothing("/api/v1/vm.boot"))?;
        self.close()
    }

    /// What it saves has its place in there already: nothing else that it needs is made later.
    fn close(&self) -> Result<(), Error> {
        self.own.make(SAVED).map_err(Error::io("make a directory for the machine's memory"))?;
        self.own.close().map_err(Error::io("close the machine's directory"))
    }

    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        self.order(&Request::put_nothing("/api/v1/vm.pause"))
    }

    /// One that runs would refuse.
    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        let found = self.api.order(&Request::get("/api/v1/vm.info"), PATIENCE)?;
        match found.get("state").and_then(Value::as_str) {
            Some("Running") => Ok(()),
            _ => self.order(&Request::put_nothing("/api/v1/vm.resume")),
        }
    }

    pub(crate) fn save(&mut self, machine: &Machine, into: &Path) -> Result<(), Error> {
        let saved = self.own.enter(SAVED).map_err(Error::io("open the directory for the machine's memory"))?;
        let request = json!({ "destination_url": format!("file://{}/{SAVED}", inside::OWN) });
        let ordered = self.api.order(&Request::put("/api/v1/vm.snapshot", request), TRANSFER);
        let ordered = ordered.map_err(|error| snapshot::or_no_space(error, self.own.fd()));
        let taken = ordered.and_then(|_| FILES.iter().try_for_each(|name| snapshot::take(&saved, name, into)));
        FILES.iter().for_each(|name| saved.remove(name));
        taken?;
        restate(&into.join(CONFIG), machine)
    }

    /// It stays paused.
    pub(crate) fn load(&mut self, _from: &Snapshot) -> Result<(), Error> {
        // Reading memory when it is needed instead takes a userfaultfd(2) that no jailed program is given.
        let body = json!({ "source_url": format!("file://{}", inside::SNAPSHOT), "memory_restore_mode": "Copy" });
        self.api.order(&Request::put("/api/v1/vm.restore", body), TRANSFER)?;
        self.close()
    }

    /// It believes what it saved of a disk's size. What it is told goes for the file as well, and so is what that has.
    pub(crate) fn measure_drives(&mut self, machine: &Machine) -> Result<(), Error> {
        let own = machine.drives.iter().filter(|drive| drive.access == DriveAccess::ReadWrite);
        own.into_iter().try_for_each(|drive| {
            let size = fs::metadata(&drive.file).map_err(Error::io("look at a disk"))?.len();
            let size = ByteSize::from_bytes(size).map_err(|_| Error::nonsense("the size of a disk"))?;
            self.resize_drive(&drive.serial, size)
        })
    }

    pub(crate) fn balloon(&mut self, whole: ByteSize, memory: ByteSize) -> Result<(), Error> {
        let taken = whole.bytes().saturating_sub(memory.bytes());
        self.order(&Request::put("/api/v1/vm.resize", json!({ "desired_balloon": taken })))
    }

    pub(crate) fn set_drive_rate(&mut self, _serial: &str, _rate: DriveRate) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn resize_drive(&mut self, serial: &str, size: ByteSize) -> Result<(), Error> {
        let body = json!({ "id": serial, "desired_size": size.bytes() });
        self.order(&Request::put("/api/v1/vm.resize-disk", body))
    }

    fn order(&self, request: &Request) -> Result<(), Error> {
        self.api.order(request, PATIENCE).map(drop)
    }
}

/// Writes what was asked for into the configuration that a snapshot is loaded by.
fn restate(path: &Path, machine: &Machine) -> Result<(), Error> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_CONFIG).read_to_end(&mut text));
    read.map_err(Error::io("read the saved configuration"))?;
    let nonsense = |_| Error::nonsense("the order to save");
    let mut theirs: Value = serde_json::from_slice(&text).map_err(nonsense)?;
    config::restate(&mut theirs, &config::of(machine));
    let written = fs::remove_file(path)
        .and_then(|()| fs::write(path, theirs.to_string()))
        // As all of a snapshot: its directory is what keeps others out.
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o444)));
    written.map_err(Error::io("write the saved configuration"))
}
