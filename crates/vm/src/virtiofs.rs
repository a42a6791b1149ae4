//! The program that serves a directory of the host to a guest (virtiofsd): QEMU's own up to 7.2, in C, and its successor.

use std::path::Path;

use crate::error::Error;
use crate::program::Program;
use crate::vmm::Launch;

/// Names its file, where it is to be another.
const VARIABLE: &str = "GARTH_VIRTIOFSD";
/// Where distributions put it, out of the way of people.
const FILES: [&str; 4] =
    ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd", "/usr/libexec/qemu-kvm/virtiofsd"];
/// How the first one names itself; the other says `virtiofsd 1.13.0`.
const FIRST: &str = "virtiofsd version";

/// Where it finds the directory, in its jail.
const SERVED: &str = "/volume";

/// An installed virtiofsd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtioFs(Program);

impl VirtioFs {
    /// The program, if it is installed.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Missing`], with what to install.
    pub fn find() -> Result<Self, Error> {
        let install = "apt-get install virtiofsd (Debian 12: qemu-system-common)";
        let installed = FILES.iter().find(|path| Path::new(path).is_file());
        match installed.filter(|_| std::env::var_os(VARIABLE).is_none()) {
            Some(path) => Program::at(path.into()).map(Self),
            None => Program::named(VARIABLE, "virtiofsd", install).map(Self),
        }
    }

    /// What it is, with its version.
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// How to start it for one share, in a jail: it is given one descriptor, a socket that listens for the hypervisor.
    pub fn launch(&self) -> Launch {
        // The directory is its root before it hears the guest. Metadata is the guest's to keep for a second.
        let own: &[&str] = match self.0.version.starts_with(FIRST) {
            true => &["-f", "-o", "source=/volume,sandbox=chroot,cache=auto,xattr,no_posix_lock,no_flock"],
            false => &[
                "--shared-dir",
                SERVED,
                "--sandbox",
                "chroot",
                "--cache",
                "auto",
                "--xattr",
                // To open files by handle takes a capability that passes every permission by.
                "--inode-file-handles=never",
            ],
        };
        // As many files as it was given, and not what it finds in /proc.
        let all = ["--fd=%fd0%", "--rlimit-nofile=0"].iter().chain(own);
        Launch {
            program: self.0.path.display().to_string(),
            arguments: all.map(|word| (*word).to_owned()).collect(),
            shown: self.0.shown().collect(),
            descriptors: Vec::new(),
            tap: None,
            sockets: Vec::new(),
        }
    }
}
