//! This program as an ordinary process of the sandbox: not the agent, which nobody can look into, but what a user's
//! process is. Not listed, and nothing of it is kept.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use garth_kernel::supervise::{Command, Exit, Identity, Privileges, Report, Stdio, Supervisor};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, getegid, geteuid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::PATIENCE;
use super::pump::next_report;
use super::tree;
use crate::readiness::watch;

/// Why there is no answer of it.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// It could not be started or talked to.
    #[error("the process could not be run: {0}")]
    Io(#[from] io::Error),
    /// It was killed, or ended with an error.
    #[error("the process ended with {0:?}")]
    Ended(Option<Exit>),
    /// It took too long.
    #[error("the process took longer than {0:?}")]
    Slow(Duration),
    /// It said too much.
    #[error("the process wrote more than {0} bytes")]
    Loud(usize),
}

/// What it may say, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes.
    pub output: usize,
    /// From its start to its end.
    pub time: Duration,
}

/// Runs this program with these words as whoever the agent is, the sandbox's root if that can be; `input` is its standard input, its output is returned.
pub async fn run_own(words: &[&str], input: &[u8], bounds: Bounds, privileges: Privileges) -> Result<Bytes, OwnError> {
    let Running { mut supervisor, to_child, from_child } = Running::start(words, privileges)?;
    let root = supervisor.get_ref().pid();
    let talk = async {
        // One that ends without reading everything says by its exit code why.
        let (_, output) = tokio::join!(feed(to_child, input), read(from_child, bounds.output));
        output
    };
    let talked = tokio::time::timeout(bounds.time, talk).await;
    if !matches!(talked, Ok(Ok(_))) {
        end(root).await;
    }
    let exit = ended(&mut supervisor, root).await;
    let output = talked.map_err(|_| OwnError::Slow(bounds.time))??;
    match exit {
        Some(Exit::Code(0)) => Ok(output),
        other => Err(OwnError::Ended(other)),
    }
}

struct Running {
    supervisor: AsyncFd<Supervisor>,
    to_child: AsyncFd<OwnedFd>,
    from_child: AsyncFd<OwnedFd>,
}

impl Running {
    fn start(words: &[&str], privileges: Privileges) -> io::Result<Self> {
        let (input, to_child) = pipe_with(PipeFlags::CLOEXEC)?;
        let (from_child, output) = pipe_with(PipeFlags::CLOEXEC)?;
        let error = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let to_child = nonblocking(to_child, Interest::WRITABLE)?;
        let from_child = nonblocking(from_child, Interest::READABLE)?;
        let supervisor = Supervisor::spawn(command(words, Stdio::Separate { input, output, error }, privileges)?)?;
        Ok(Self { supervisor: watch(supervisor, Interest::READABLE)?, to_child, from_child })
    }
}

fn command(words: &[&str], stdio: Stdio, privileges: Privileges) -> io::Result<Command> {
    let word = |word: &&str| CString::new(*word).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mut argv = vec![c"garth-agent".to_owned()];
    argv.extend(words.iter().map(word).collect::<io::Result<Vec<_>>>()?);
    let gid = getegid().as_raw();
    Ok(Command {
        // In the new process it is its own: the agent's file, sealed and in no directory.
        programs: vec![c"/proc/self/exe".to_owned()],
        argv,
        env: Vec::new(),
        cwd: c"/".to_owned(),
        identity: Identity { uid: geteuid().as_raw(), gid, groups: vec![gid] },
        stdio,
        privileges,
    })
}

fn nonblocking(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK)?;
    watch(fd, interest)
}

/// Writes all of it and closes the pipe.
async fn feed(pipe: AsyncFd<OwnedFd>, mut input: &[u8]) -> io::Result<()> {
    while !input.is_empty() {
        let count = pipe.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, input)?)).await?;
        input = &input[count..];
    }
    Ok(())
}

async fn read(pipe: AsyncFd<OwnedFd>, most: usize) -> Result<Bytes, OwnError> {
    let mut all = BytesMut::new();
    let mut piece = vec![0; 16 << 10];
    loop {
        match pipe.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut piece)?)).await? {
            0 => return Ok(all.freeze()),
            count if all.len() + count > most => return Err(OwnError::Loud(most)),
            count => all.extend_from_slice(&piece[..count]),
        }
    }
}

/// Waits until nothing of it is left: only then can its supervisor's memory be used again.
async fn ended(supervisor: &mut AsyncFd<Supervisor>, root: Pid) -> Option<Exit> {
    let mut exit = None;
    loop {
        match tokio::time::timeout(PATIENCE, next_report(supervisor)).await {
            Ok(Ok(Report::Exited(code))) => exit = Some(code),
            Ok(Ok(Report::Started { .. })) => {}
            Ok(Ok(Report::Failed { errno, .. })) => exit = Some(Exit::Code(errno)),
            Ok(Ok(Report::Gone) | Err(_)) => return exit,
            // Its output is closed, and it lives.
            Err(_) => end(root).await,
        }
    }
}

async fn end(root: Pid) {
    let kill = tokio::task::spawn_blocking(move || tree::kill(root, PATIENCE, |_| true, || false));
    let _ = kill.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIS: &str = "process::own::tests::never_ends";

    /// Not a test: what the others run.
    #[test]
    #[ignore = "it never ends"]
    fn never_ends() {
        loop {
            std::thread::sleep(Duration::from_secs(60));
        }
    }

    async fn run(words: &[&str], bounds: Bounds) -> Result<Bytes, OwnError> {
        run_own(words, b"unread", bounds, Privileges::Gainable).await
    }

    fn bounds(output: usize, time: Duration) -> Bounds {
        Bounds { output, time }
    }

    #[tokio::test]
    async fn what_takes_too_long_or_says_too_much_is_ended() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP what_takes_too_long_or_says_too_much_is_ended: root");
            return;
        }
        let minute = Duration::from_secs(60);
        let listed = run(&["--list"], bounds(1 << 20, minute)).await.expect("a list");
        assert!(String::from_utf8_lossy(&listed).contains(THIS));
        assert!(matches!(run(&["--list"], bounds(16, minute)).await, Err(OwnError::Loud(16))));
        let slow = run(&["--ignored", "--exact", THIS], bounds(1 << 20, Duration::from_millis(200))).await;
        assert!(matches!(slow, Err(OwnError::Slow(_))), "{slow:?}");
        let wrong = run(&["--no-such-flag"], bounds(1 << 20, minute)).await;
        assert!(matches!(wrong, Err(OwnError::Ended(Some(Exit::Code(code)))) if code != 0), "{wrong:?}");
    }
}
