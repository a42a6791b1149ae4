//! A program's own directory, and sockets that it makes there. A guest may have taken the program over and put anything in their
//! place, so no path there is followed: what stands there is held first, looked at, and then connected to.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// A program that is slow to listen is looked at again this soon: nothing tells when it does.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A directory of a program's.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    /// A directory whose own path is the host's and trusted.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Makes a directory in it, if there is none, that belongs to whoever it belongs to.
    pub(crate) fn make(&self, name: &str) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.0, name, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let owner = rustix::fs::fstat(&self.0)?;
        let (user, group) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
        Ok(rustix::fs::fchown(&self.enter(name)?.0, Some(user), Some(group))?)
    }

    /// A directory in it.
    pub(crate) fn enter(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(&self.0, name, flags, Mode::empty())?))
    }

    /// Whoever it belongs to can make, rename and remove nothing in it from now on.
    pub(crate) fn close(&self) -> io::Result<()> {
        Ok(rustix::fs::fchown(&self.0, Some(rustix::process::geteuid()), None)?)
    }

    /// Removes a file, if there is one.
    pub(crate) fn remove(&self, name: &str) {
        let _ = rustix::fs::unlinkat(&self.0, name, AtFlags::empty());
    }

    /// Connects to a socket in it. Every wait on the connection is bounded by this patience.
    pub(crate) fn connect(&self, name: &str, patience: Duration) -> io::Result<UnixStream> {
        let held = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = rustix::fs::openat(&self.0, name, held, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&held)?.st_mode) != FileType::Socket {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no socket is there"));
        }
        // The link leads to what is held, whatever its name has become (proc_pid_fd(5)).
        connect(Path::new(&format!("/proc/self/fd/{}", held.as_raw_fd())), patience)
    }

    /// The same, once somebody listens.
    pub(crate) fn await_connection(&self, name: &str, patience: Duration) -> io::Result<UnixStream> {
        let deadline = Instant::now() + patience;
        loop {
            match self.connect(name, patience) {
                Err(error) if is_too_early(&error) && Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
                connected => return connected,
            }
        }
    }
}

/// Connects to a socket by a path that can be trusted.
pub(crate) fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Whoever listens and accepts nobody would make even the call below wait for ever (unix(7), SO_SNDTIMEO).
    set_socket_timeout(socket.as_fd(), Timeout::Send, Some(patience))?;
    set_socket_timeout(socket.as_fd(), Timeout::Recv, Some(patience))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

fn is_too_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[test]
    fn a_link_to_another_socket_is_not_followed() {
        let (own, host) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
        let secret = host.path().join("secret.sock");
        let _listener = UnixListener::bind(&secret).expect("listen");
        std::os::unix::fs::symlink(&secret, own.path().join("api.sock")).expect("link");
        let directory = Directory::open(own.path()).expect("open");
        let error = directory.connect("api.sock", SHORT).expect_err("a link");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_is_no_socket_is_not_connected_to() {
        let own = tempfile::tempdir().expect("directory");
        std::fs::write(own.path().join("api.sock"), "").expect("file");
        let directory = Directory::open(own.path()).expect("open");
        assert_eq!(directory.connect("api.sock", SHORT).expect_err("a file").kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_directory_that_is_a_link_is_not_opened() {
        let place = tempfile::tempdir().expect("directory");
        std::os::unix::fs::symlink("/", place.path().join("own")).expect("link");
        Directory::open(&place.path().join("own")).expect_err("a link");
    }

    #[test]
    fn who_accepts_nobody_is_not_waited_for() {
        let own = tempfile::tempdir().expect("directory");
        let listener = UnixListener::bind(own.path().join("api.sock")).expect("listen");
        rustix::net::listen(&listener, 0).expect("no room");
        let directory = Directory::open(own.path()).expect("open");
        let mut kept = Vec::new();
        let error = loop {
            match directory.connect("api.sock", SHORT) {
                Ok(stream) => kept.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
