//! The way to a guest's agent.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::socket::{self, Directory};

/// The agent's port where the channel is a vsock.
pub const AGENT_PORT: u32 = 1024;

/// How long the program may take to pass a connection on.
const PATIENCE: Duration = Duration::from_secs(10);
/// `OK 4294967295\n`.
const LONGEST_ANSWER: usize = 14;
/// What errors call it.
const CONNECT: &str = "the connection to the guest's agent";

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

impl ChannelAddress {
    /// Connects. Blocks for a bounded time.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] when nobody in the guest listens, which is so until its agent is up.
    pub fn connect(&self) -> Result<UnixStream, Error> {
        let stream = match self {
            Self::Socket(path) => socket::connect(path, PATIENCE).map_err(Error::connection)?,
            Self::Vsock { directory, name, port } => {
                let directory = Directory::open(directory).map_err(Error::connection)?;
                let mut stream = directory.connect(name, PATIENCE).map_err(Error::connection)?;
                stream.write_all(format!("CONNECT {port}\n").as_bytes()).map_err(Error::connection)?;
                await_ok(&mut stream)?;
                stream
            }
        };
        let endless = stream.set_read_timeout(None).and_then(|()| stream.set_write_timeout(None));
        endless.map_err(Error::connection).map(|()| stream)
    }
}

/// Byte by byte: what follows is the agent's.
fn await_ok(stream: &mut UnixStream) -> Result<(), Error> {
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => return Err(Error::refused(CONNECT, "nobody listens")),
            Ok(_) => answer.extend(byte),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(Error::silent(CONNECT)),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Err(Error::refused(CONNECT, "nobody listens"));
            }
            Err(error) => return Err(Error::connection(error)),
        }
        if answer.len() > LONGEST_ANSWER {
            return Err(Error::nonsense(CONNECT));
        }
    }
    match answer.starts_with(b"OK ") {
        true => Ok(()),
        false => Err(ErrorKind::Nonsense { order: CONNECT.to_owned() }.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Connects to a program that answers so, and says something of the guest's behind it.
    fn answered(answer: &'static str) -> Result<(UnixStream, String), Error> {
        let own = tempfile::tempdir().expect("directory");
        let listener = UnixListener::bind(own.path().join("vsock.sock")).expect("listen");
        let program = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut asked = [0; 13];
            stream.read_exact(&mut asked).expect("a request");
            stream.write_all(answer.as_bytes()).expect("answer");
            String::from_utf8_lossy(&asked).into_owned()
        });
        let address = ChannelAddress::Vsock { directory: own.path().to_owned(), name: "vsock.sock", port: AGENT_PORT };
        let connected = address.connect();
        let asked = program.join().expect("program");
        connected.map(|stream| (stream, asked))
    }

    #[test]
    fn what_follows_the_answer_is_the_agents() {
        let (mut stream, asked) = answered("OK 1073741824\nhello").expect("connected");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("read");
        assert_eq!((asked.as_str(), said.as_str()), ("CONNECT 1024\n", "hello"));
    }

    #[test]
    fn a_guest_where_nobody_listens_is_told_from_a_program_that_lies() {
        let kind = |answer| answered(answer).map(drop).expect_err("no connection").into_kind();
        assert!(matches!(kind(""), ErrorKind::Refused { said, .. } if said == "nobody listens"));
        assert!(matches!(kind("NO\n"), ErrorKind::Nonsense { .. }));
        assert!(matches!(kind("OK 11111111111111111111111"), ErrorKind::Nonsense { .. }));
    }
}
