//! The way to the host: found, and the streams that come on it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use garth_channel::{Guest, Stream};
use garth_kernel::vsock;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::port::Port;
use super::{GuestFailure, Kind};
use crate::readiness::watch;

/// What the host calls the serial port.
const PORT: &str = "garth.agent";
const PORTS: &str = "/sys/class/virtio-ports";
/// Where it finds a socket, where there is no serial port.
const VSOCK_PORT: u32 = 1024;
/// Devices of these drivers tell which of the two it will be.
const SERIAL: &str = "/sys/bus/virtio/drivers/virtio_console";
const VSOCK: &str = "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport";

/// A port gets its name from the host a moment after its device is there, and no event tells.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the host will be.
#[derive(Debug)]
pub enum Place {
    /// A serial port.
    Port(PathBuf),
    /// A listening vsock.
    Vsock(OwnedFd),
}

impl Place {
    /// Looks for the port, then for vsock.
    pub(super) fn find() -> Result<Self, GuestFailure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(port) = named_port(Path::new(PORTS)) {
                return Ok(Self::Port(port));
            }
            if !has_device(Path::new(SERIAL))
                && has_device(Path::new(VSOCK))
                && let Ok(listener) = vsock::listen(VSOCK_PORT)
            {
                return Ok(Self::Vsock(listener));
            }
            if Instant::now() > deadline {
                let why = format!("the machine has neither a serial port {PORT} nor a vsock");
                return Err(GuestFailure::new(Kind::Failed, "find the channel", why));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn named_port(ports: &Path) -> Option<PathBuf> {
    let named = |port: &Path| std::fs::read_to_string(port.join("name")).is_ok_and(|name| name.trim_end() == PORT);
    let port = std::fs::read_dir(ports).ok()?.flatten().find(|port| named(&port.path()))?;
    Some(Path::new("/dev").join(port.file_name()))
}

/// A driver's devices are links beside its own files.
fn has_device(driver: &Path) -> bool {
    let is_device = |name: &str| name.strip_prefix("virtio").is_some_and(|number| number.parse::<u32>().is_ok());
    std::fs::read_dir(driver)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_device)))
}

/// The streams of whichever host there is.
#[derive(Debug)]
pub(crate) struct Line {
    way: Way,
    guest: Option<Guest>,
}

#[derive(Debug)]
enum Way {
    Port(Port),
    Vsock(AsyncFd<OwnedFd>),
}

impl Line {
    /// Within an event loop.
    pub(crate) fn open(place: Place) -> io::Result<Self> {
        let way = match place {
            Place::Port(path) => Way::Port(Port::open(&path)?),
            Place::Vsock(listener) => Way::Vsock(watch(listener, Interest::READABLE)?),
        };
        Ok(Self { way, guest: None })
    }

    /// The next stream, of this host or the next.
    pub(crate) async fn accept(&mut self) -> io::Result<Stream> {
        loop {
            match (&self.way, &mut self.guest) {
                (Way::Port(port), None) => self.guest = Some(Guest::new(port.clone())),
                (Way::Vsock(listener), None) => self.guest = Some(Guest::new(connection(listener).await?)),
                (Way::Port(_), Some(guest)) => match guest.accept().await {
                    Ok(stream) => return Ok(stream),
                    // The host is gone; the port waits for the next.
                    Err(_) => self.guest = None,
                },
                // A host that died may have left its connection behind, so a new one counts.
                (Way::Vsock(listener), Some(guest)) => tokio::select! {
                    accepted = guest.accept() => match accepted {
                        Ok(stream) => return Ok(stream),
                        Err(_) => self.guest = None,
                    },
                    connection = connection(listener) => self.guest = Some(Guest::new(connection?)),
                },
            }
        }
    }
}

/// To the standard library and the event loop a connected stream socket is one, of whatever family.
async fn connection(listener: &AsyncFd<OwnedFd>) -> io::Result<UnixStream> {
    let socket = listener.async_io(Interest::READABLE, |listener| vsock::accept(listener.as_fd())).await?;
    UnixStream::from_std(StdStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_its_name_alone() {
        let ports = tempfile::tempdir().expect("directory");
        assert_eq!(named_port(ports.path()), None);
        for (port, name) in [("vport0p1", "other\n"), ("vport2p1", "garth.agent\n"), ("vport2p2", "garth.agent.x\n")] {
            std::fs::create_dir(ports.path().join(port)).expect("port");
            std::fs::write(ports.path().join(port).join("name"), name).expect("name");
        }
        assert_eq!(named_port(ports.path()), Some("/dev/vport2p1".into()));
    }

    #[test]
    fn a_driver_without_devices_is_not_taken_for_one() {
        let driver = tempfile::tempdir().expect("directory");
        std::fs::write(driver.path().join("virtio_x"), "").expect("file");
        std::fs::write(driver.path().join("bind"), "").expect("file");
        assert!(!has_device(driver.path()));
        std::fs::write(driver.path().join("virtio12"), "").expect("device");
        assert!(has_device(driver.path()));
    }
}
