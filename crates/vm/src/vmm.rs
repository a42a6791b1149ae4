//! The programs that run guests, behind one closed enum: adding one is a file beside `qemu.rs` and a line in each
//! `match` here.

use std::path::{Path, PathBuf};

use garth_spec::{ByteSize, Handler};

use crate::channel::{AGENT_PORT, ChannelAddress};
use crate::cloud_hypervisor::{self, CloudHypervisor};
use crate::error::Error;
use crate::firecracker::{self, Firecracker};
use crate::machine::{Begin, DriveRate, Machine};
use crate::qemu::{self, Qemu};
use crate::snapshot::{Saved, Snapshot};

/// A program that runs guests.
#[derive(Debug, Clone)]
pub enum Vmm {
    /// QEMU: also without KVM.
    Qemu(Qemu),
    /// Firecracker.
    Firecracker(Firecracker),
    /// Cloud Hypervisor.
    CloudHypervisor(CloudHypervisor),
}

/// What a program can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// It runs guests where KVM does not work.
    pub emulates: bool,
    /// It tells a restored guest that it is a copy (VMGenID).
    pub vmgenid: bool,
    /// Guests restored from one snapshot share its memory until they write.
    pub shared_memory: bool,
    /// It can lend the guest a directory of the host.
    pub virtiofs: bool,
    /// What it saved can be loaded with other disks and another wire.
    pub templates: bool,
}

/// How to start the program for one machine, in a jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Its path inside.
    pub program: String,
    /// Its arguments; `%fd0%` stands for the number of the first of `descriptors`, and so on.
    pub arguments: Vec<String>,
    /// What it must see.
    pub shown: Vec<Shown>,
    /// What it must be given, in this order.
    pub descriptors: Vec<Descriptor>,
    /// The name of the tap that it opens: one that persists, is up, belongs to the program's user, and stands in the
    /// network namespace that the program runs in.
    pub tap: Option<&'static str>,
    /// The sockets of those that serve its shares, where it looks for them; none where it is given them open.
    pub sockets: Vec<PathBuf>,
}

/// A file or directory of the host, and where the program looks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// On the host.
    pub from: PathBuf,
    /// Inside.
    pub at: PathBuf,
    /// What for.
    pub access: Access,
}

/// What something shown is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To be read.
    Read,
    /// To be run or mapped as code.
    Run,
    /// To be read and written.
    Write,
    /// A device node.
    Device,
}

/// What a program is given open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    /// A socket that listens for the guest's channel: [`Place::channel`].
    Channel,
    /// A socket that listens for orders: [`Place::control`].
    Control,
    /// One end of a socket that takes what the guest's console says.
    Console,
    /// The same, to be the program's standard output. It comes last and has no number.
    Output,
    /// The tap of the network interface.
    Tap,
    /// A socket that is connected to who serves the share of this number.
    Share(usize),
}

/// Where a running machine is reached from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A directory that only root enters: sockets that the host made.
    pub host: PathBuf,
    /// The program's own directory, `/own` inside. What is there cannot be trusted.
    pub own: PathBuf,
}

impl Place {
    /// The channel's socket, where the host makes it.
    pub fn channel(&self) -> PathBuf {
        self.host.join("channel.sock")
    }

    /// The socket of who serves the share of this number, where the host makes it.
    pub fn share(&self, number: usize) -> PathBuf {
        self.host.join(format!("share{number}.sock"))
    }

    /// The socket for orders, where the host makes it.
    pub fn control(&self) -> PathBuf {
        self.host.join("control.sock")
    }
}

impl Vmm {
    /// The program of this handler, if it is installed and answers.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Missing`], with what to install; [`crate::ErrorKind::NotAVmm`].
    pub fn find(handler: Handler) -> Result<Self, Error> {
        match handler {
            Handler::MicrovmQemu => Qemu::find().map(Self::Qemu),
            Handler::MicrovmFirecracker => Firecracker::find().map(Self::Firecracker),
            Handler::MicrovmCloudHypervisor => CloudHypervisor::find().map(Self::CloudHypervisor),
            other => Err(Error::missing(other.to_string(), "this version of garth does not have it")),
        }
    }

    /// What it is, with its version: `QEMU emulator version 7.2.22`. A snapshot is read by the same alone.
    pub fn version(&self) -> &str {
        match self {
            Self::Qemu(qemu) => qemu.version(),
            Self::Firecracker(firecracker) => firecracker.version(),
            Self::CloudHypervisor(cloud_hypervisor) => cloud_hypervisor.version(),
        }
    }

    /// What it can do.
    pub fn capabilities(&self) -> Capabilities {
        match self {
            Self::Qemu(_) => qemu::CAPABILITIES,
            Self::Firecracker(_) => firecracker::CAPABILITIES,
            Self::CloudHypervisor(_) => cloud_hypervisor::CAPABILITIES,
        }
    }

    /// How to start it.
    pub fn launch(&self, machine: &Machine, begin: Begin<'_>) -> Launch {
        match self {
            Self::Qemu(qemu) => qemu.launch(machine, begin),
            Self::Firecracker(firecracker) => firecracker.launch(machine, begin),
            Self::CloudHypervisor(cloud_hypervisor) => cloud_hypervisor.launch(machine, begin),
        }
    }

    /// All that it is told of a machine, but how fast its disks may be where that can be said later. Of a template it says
    /// what the machines that go on from there must be.
    pub(crate) fn told(&self, machine: &Machine) -> Vec<String> {
        match self {
            Self::Qemu(qemu) => qemu.launch(machine, Begin::Template).arguments,
            Self::Firecracker(_) => firecracker::told(machine),
            Self::CloudHypervisor(_) => vec![cloud_hypervisor::told(machine)],
        }
    }

    /// Where its guests' channel is.
    pub fn channel(&self, place: &Place) -> ChannelAddress {
        match self {
            Self::Qemu(_) => ChannelAddress::Socket(place.channel()),
            Self::Firecracker(_) | Self::CloudHypervisor(_) => {
                ChannelAddress::Vsock { directory: place.own.clone(), name: VSOCK, port: AGENT_PORT }
            }
        }
    }

    /// Connects to a running program.
    pub fn control(&self, place: &Place) -> Result<Control, Error> {
        let orders = match self {
            Self::Qemu(_) => qemu::Control::connect(&place.control()).map(Orders::Qemu),
            Self::Firecracker(_) => firecracker::Control::connect(place).map(Orders::Firecracker),
            Self::CloudHypervisor(_) => cloud_hypervisor::Control::connect(place).map(Orders::CloudHypervisor),
        };
        Ok(Control { vmm: self.version().to_owned(), orders: orders? })
    }
}

/// The vsock's socket in the program's own directory.
pub(crate) const VSOCK: &str = "vsock.sock";

/// Orders for a running machine. Every call waits for the answer, for a bounded time.
#[derive(Debug)]
pub struct Control {
    /// Who writes and reads its snapshots.
    vmm: String,
    orders: Orders,
}

#[derive(Debug)]
enum Orders {
    Qemu(qemu::Control),
    Firecracker(firecracker::Control),
    CloudHypervisor(cloud_hypervisor::Control),
}

/// Calls one function of whichever program there is.
macro_rules! order {
    ($self:ident, $orders:ident => $call:expr) => {
        match &mut $self.orders {
            Orders::Qemu($orders) => $call,
            Orders::Firecracker($orders) => $call,
            Orders::CloudHypervisor($orders) => $call,
        }
    };
}

impl Control {
    /// Has the machine run for the first time.
    pub fn start(&mut self, machine: &Machine) -> Result<(), Error> {
        order!(self, orders => orders.start(machine))
    }

    /// Stops its processors.
    pub fn pause(&mut self) -> Result<(), Error> {
        order!(self, orders => orders.pause())
    }

    /// Has them run on.
    pub fn resume(&mut self) -> Result<(), Error> {
        order!(self, orders => orders.resume())
    }

    /// Writes a paused machine's memory and devices into a directory, which is empty and which only root enters. The
    /// machine stays paused; it can be resumed before the snapshot is recorded.
    ///
    /// # Errors
    /// Whatever fails, the directory is empty again and the machine can be resumed; [`crate::ErrorKind::NoSpace`].
    pub fn save(&mut self, machine: &Machine, into: &Path) -> Result<Saved, Error> {
        let saved = Saved::begin(into, &self.vmm, machine)?;
        order!(self, orders => orders.save(machine, into)).map(|()| saved)
    }

    /// Gives a machine that began with [`Begin::Restore`] what was saved. It stays paused.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Snapshot`] when it is of another program, another machine, or not what was opened any more;
    /// the program was not told to load it then.
    pub fn load(&mut self, machine: &Machine, from: &Snapshot) -> Result<(), Error> {
        from.check(&self.vmm, machine)?;
        order!(self, orders => orders.load(from))?;
        machine.drives.iter().try_for_each(|drive| self.set_drive_rate(&drive.serial, drive.rate))
    }

    /// Has a machine that was loaded from a template know how large its own disks are, where it does not look for itself.
    pub fn measure_drives(&mut self, machine: &Machine) -> Result<(), Error> {
        match &mut self.orders {
            Orders::CloudHypervisor(orders) => orders.measure_drives(machine),
            Orders::Qemu(_) | Orders::Firecracker(_) => Ok(()),
        }
    }

    /// Holds a disk to another rate. Cloud Hypervisor keeps the one that the machine was made with.
    pub fn set_drive_rate(&mut self, serial: &str, rate: DriveRate) -> Result<(), Error> {
        order!(self, orders => orders.set_drive_rate(serial, rate))
    }

    /// Asks the guest of a machine of `whole` to give back all memory beyond this.
    pub fn balloon(&mut self, whole: ByteSize, memory: ByteSize) -> Result<(), Error> {
        order!(self, orders => orders.balloon(whole, memory))
    }

    /// A disk's file has another size now.
    pub fn resize_drive(&mut self, serial: &str, size: ByteSize) -> Result<(), Error> {
        order!(self, orders => orders.resize_drive(serial, size))
    }
}
