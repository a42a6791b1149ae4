//! The programs that run guests, behind one closed enum: adding one is a file beside `qemu.rs` and a line in each
//! `match` here.

use std::path::{Path, PathBuf};

use garth_spec::{ByteSize, Handler};

use crate::error::Error;
use crate::machine::{Begin, Machine};
use crate::qemu::{self, Qemu};

/// A program that runs guests.
#[derive(Debug, Clone)]
pub enum Vmm {
    /// QEMU: also without KVM.
    Qemu(Qemu),
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
    /// The tap of the network interface.
    Tap,
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

    /// The socket for orders, where the host makes it.
    pub fn control(&self) -> PathBuf {
        self.host.join("control.sock")
    }
}

/// How the guest's channel is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelAddress {
    /// The socket is the channel.
    Socket(PathBuf),
    /// A socket in the program's own directory, by name: `CONNECT port` first, `OK …` back (Firecracker's vsock.md).
    Vsock {
        /// The program's own directory.
        directory: PathBuf,
        /// The socket's name there.
        name: &'static str,
        /// The port that the agent listens on.
        port: u32,
    },
}

/// The agent's port where the channel is a vsock.
pub const AGENT_PORT: u32 = 1024;

impl Vmm {
    /// The program of this handler, if it is installed and answers.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Missing`], with what to install; [`crate::ErrorKind::NotAVmm`].
    pub fn find(handler: Handler) -> Result<Self, Error> {
        match handler {
            Handler::MicrovmQemu => Qemu::find().map(Self::Qemu),
            other => Err(Error::missing(other.to_string(), "this version of garth does not have it")),
        }
    }

    /// What it is, with its version: `QEMU emulator version 7.2.22`. A snapshot is read by the same alone.
    pub fn version(&self) -> &str {
        match self {
            Self::Qemu(qemu) => qemu.version(),
        }
    }

    /// What it can do.
    pub fn capabilities(&self) -> Capabilities {
        match self {
            Self::Qemu(_) => qemu::CAPABILITIES,
        }
    }

    /// How to start it.
    pub fn launch(&self, machine: &Machine, begin: Begin) -> Launch {
        match self {
            Self::Qemu(qemu) => qemu.launch(machine, begin),
        }
    }

    /// Where its guests' channel is.
    pub fn channel(&self, place: &Place) -> ChannelAddress {
        match self {
            Self::Qemu(_) => ChannelAddress::Socket(place.channel()),
        }
    }

    /// Connects to a running program.
    pub fn control(&self, place: &Place) -> Result<Control, Error> {
        match self {
            Self::Qemu(_) => qemu::Control::connect(&place.control()).map(Control::Qemu),
        }
    }
}

/// Orders for a running machine. Every call waits for the answer, for a bounded time.
#[derive(Debug)]
pub enum Control {
    /// Of QEMU.
    Qemu(qemu::Control),
}

/// Calls one function of whichever program there is.
macro_rules! control {
    ($self:ident, $control:ident => $call:expr) => {
        match $self {
            Self::Qemu($control) => $call,
        }
    };
}

impl Control {
    /// Has the machine run for the first time.
    pub fn start(&mut self, machine: &Machine) -> Result<(), Error> {
        control!(self, control => control.start(machine))
    }

    /// Stops its processors.
    pub fn pause(&mut self) -> Result<(), Error> {
        control!(self, control => control.pause())
    }

    /// Has them run on.
    pub fn resume(&mut self) -> Result<(), Error> {
        control!(self, control => control.resume())
    }

    /// Writes a paused machine's memory and devices into a directory, which is empty. The machine stays paused.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NoSpace`]; the machine can be resumed.
    pub fn save(&mut self, into: &Path) -> Result<(), Error> {
        control!(self, control => control.save(into))
    }

    /// Gives a machine that began with [`Begin::Restore`] what [`Control::save`] wrote. It stays paused.
    pub fn load(&mut self, machine: &Machine, from: &Path) -> Result<(), Error> {
        control!(self, control => control.load(machine, from))
    }

    /// Asks the guest to give back all memory beyond this.
    pub fn balloon(&mut self, memory: ByteSize) -> Result<(), Error> {
        control!(self, control => control.balloon(memory))
    }

    /// A disk's file has another size now.
    pub fn resize_drive(&mut self, serial: &str, size: ByteSize) -> Result<(), Error> {
        control!(self, control => control.resize_drive(serial, size))
    }
}
