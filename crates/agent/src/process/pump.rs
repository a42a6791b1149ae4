//! The task of one process: moves its output, notices its end, stores its ring.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use garth_kernel::supervise::{Exit, Report, Supervisor};
use garth_protocol::agent::{EndReason, Ended, Stream};
use rustix::io::Errno;
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;

use super::Process;
use super::store::Store;

/// The most that is read at once: a pipe's usual size.
const PIECE: usize = 64 << 10;
/// How long the end of a killed tree's leader waits for the rest of the tree.
const TREE_PATIENCE: Duration = Duration::from_secs(5);

/// One stream of output.
#[derive(Debug)]
pub struct Source {
    stream: Stream,
    fd: Option<Arc<AsyncFd<OwnedFd>>>,
}

impl Source {
    /// A non-blocking descriptor that a process writes to.
    pub fn new(stream: Stream, fd: Arc<AsyncFd<OwnedFd>>) -> Self {
        Self { stream, fd: Some(fd) }
    }

    /// One that never says anything.
    pub fn none() -> Self {
        Self { stream: Stream::STREAM_UNSPECIFIED, fd: None }
    }

    /// Waits for output; `None` at its end, and for ever after that.
    async fn read(&mut self) -> Option<Bytes> {
        let Some(fd) = self.fd.clone() else { return std::future::pending().await };
        let data = fd.async_io(tokio::io::Interest::READABLE, read_piece).await;
        self.take(data)
    }

    /// What can be read now, but not for ever: a background child may write faster than we read.
    fn drain(&mut self, output: &super::Output) {
        let mut left = PIECE * 4;
        while let Some(fd) = self.fd.clone()
            && left > 0
        {
            match read_piece(fd.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                data => {
                    let Some(data) = self.take(data) else { return };
                    left = left.saturating_sub(data.len());
                    output.push(self.stream, data);
                }
            }
        }
    }

    fn take(&mut self, data: io::Result<Bytes>) -> Option<Bytes> {
        let data = data.ok().filter(|data| !data.is_empty());
        if data.is_none() {
            self.fd = None;
        }
        data
    }
}

/// As much as there is. Its size is asked for first, so that an idle process costs no buffer.
fn read_piece(fd: &OwnedFd) -> io::Result<Bytes> {
    let there = rustix::io::ioctl_fionread(fd).unwrap_or(0);
    let size = usize::try_from(there).unwrap_or(PIECE).clamp(1, PIECE);
    let mut buffer = Vec::with_capacity(size);
    match rustix::io::retry_on_intr(|| rustix::io::read(fd, rustix::buffer::spare_capacity(&mut buffer))) {
        Ok(_) => Ok(buffer.into()),
        // A terminal whose last user closed it (pty(7)).
        Err(Errno::IO) => Ok(Bytes::new()),
        Err(error) => Err(error.into()),
    }
}

/// Everything that the task of a process owns.
#[derive(Debug)]
pub struct Pump {
    pub process: Arc<Process>,
    pub supervisor: AsyncFd<Supervisor>,
    pub sources: [Source; 2],
    pub timeout: Option<Duration>,
    pub store: Store,
}

/// Where the process stands.
#[derive(Debug, Default)]
struct Progress {
    exited: Option<Exit>,
    timed_out: bool,
    supervisor_gone: bool,
    reported: bool,
}

impl Progress {
    fn complete(&self) -> bool {
        self.supervisor_gone && (self.exited.is_some() || self.reported)
    }
}

impl Pump {
    /// Runs until nothing of the process is left and its output is stored.
    pub async fn run(mut self) {
        let mut progress = Progress::default();
        let mut timeout = std::pin::pin!(optional_sleep(self.timeout));
        let mut tree = std::pin::pin!(optional_sleep(None));
        while !progress.complete() {
            let [first, second] = &mut self.sources;
            let room = self.store.has_room();
            tokio::select! {
                biased;
                report = next_report(&mut self.supervisor), if !progress.supervisor_gone => {
                    self.note(report, &mut progress);
                    // Whoever waits for the end hears of it before the process is cleared away.
                    tokio::task::yield_now().await;
                    if progress.exited.is_some() && !progress.reported {
                        tree.set(optional_sleep(Some(TREE_PATIENCE)));
                    }
                }
                data = first.read(), if room => self.push(0, data),
                data = second.read(), if room => self.push(1, data),
                () = &mut timeout, if !progress.timed_out && progress.exited.is_none() => {
                    progress.timed_out = true;
                    self.process.killing.store(true, Ordering::Relaxed);
                    let process = Arc::clone(&self.process);
                    tokio::spawn(async move { process.signal_tree(Signal::KILL).await });
                }
                () = &mut tree, if !progress.reported => self.report_end(&mut progress),
                exit = self.process.orphan.exit(), if progress.supervisor_gone => {
                    progress.exited = Some(exit);
                    self.report_end(&mut progress);
                }
                () = self.store.work() => {}
            }
        }
        self.sources.iter_mut().for_each(|source| source.drain(&self.process.output));
        self.process.gone.store(true, Ordering::Relaxed);
        self.store.finish().await;
    }

    fn push(&mut self, source: usize, data: Option<Bytes>) {
        if let Some(data) = data {
            self.process.output.push(self.sources[source].stream, data);
            self.store.note_output();
        }
    }

    fn note(&mut self, report: io::Result<Report>, progress: &mut Progress) {
        match report {
            Ok(Report::Exited(exit)) => progress.exited = Some(exit),
            Ok(Report::Gone) | Err(_) => progress.supervisor_gone = true,
            Ok(Report::Started { .. } | Report::Failed { .. }) => return,
        }
        let lost = progress.supervisor_gone && progress.exited.is_none();
        if lost && self.process.outlives_supervisor() {
            return;
        }
        let killed = self.process.killing.load(Ordering::Relaxed);
        if !progress.reported && (progress.supervisor_gone || !killed) {
            self.report_end(progress);
        }
    }

    /// Sends what the leader wrote, then its end. It is lost when the supervisor was killed before it could tell.
    fn report_end(&mut self, progress: &mut Progress) {
        self.sources.iter_mut().for_each(|source| source.drain(&self.process.output));
        progress.reported = true;
        let (reason, exit_code, signal) = match progress.exited {
            _ if progress.timed_out => (EndReason::END_REASON_TIMEOUT, 0, Signal::KILL.as_raw()),
            Some(Exit::Code(code)) => (EndReason::END_REASON_EXITED, code, 0),
            Some(Exit::Signal(signal)) => (EndReason::END_REASON_SIGNALED, 0, signal),
            None => (EndReason::END_REASON_LOST, 0, 0),
        };
        self.process.end(Ended { reason: reason.into(), exit_code, signal, ..Default::default() });
        self.store.note_end();
    }
}

async fn optional_sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// The supervisor's next report.
pub async fn next_report(supervisor: &mut AsyncFd<Supervisor>) -> io::Result<Report> {
    loop {
        let mut ready = supervisor.readable_mut().await?;
        if let Ok(report) = ready.try_io(|supervisor| supervisor.get_mut().report()) {
            return report;
        }
    }
}
