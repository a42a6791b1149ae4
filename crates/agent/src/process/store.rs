//! Brings a process's output to its ring on disk, behind its readers' backs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use garth_protocol::agent as wire;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Process;
use super::output::{Disk, TAIL};
use super::ring::{Bound, Keep, Ring};

/// How long output waits for more of it before it goes to disk.
const LINGER: Duration = Duration::from_millis(20);
/// Output in memory at which it does not wait.
const MUCH: usize = 64 << 10;
/// When a disk that refused is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long a process on a full disk waits for a reader that does not read.
const READER_PATIENCE: Duration = Duration::from_secs(10);
/// What stays in memory of an ended process whose output could not be stored.
const LAST_WORDS: usize = 4 << 10;

/// The ring of one process. At most one job of it is on a thread of the pool.
#[derive(Debug)]
pub struct Store {
    process: Arc<Process>,
    keep: Keep,
    capacity: u64,
    ring: Option<Ring>,
    job: Option<JoinHandle<Done>>,
    due: Option<Instant>,
    /// When the wait for a slow reader ends; set while the disk is full and memory too.
    patience: Option<Instant>,
    /// The ring waits for a reader to which nothing may be lost.
    held: bool,
}

#[derive(Debug)]
struct Done {
    ring: Option<Ring>,
    /// Whether all was written; without an error, a reader is in the way of what was not.
    result: io::Result<bool>,
}

impl Store {
    /// A store that writes nothing until there is output, or at once for a detached process. `capacity` is in bytes.
    pub fn new(process: Arc<Process>, keep: Keep, capacity: u64) -> Self {
        let due = process.facts.detached.then(Instant::now);
        Self { process, keep, capacity, ring: None, job: None, due, patience: None, held: false }
    }

    /// Whether more output may be read.
    pub fn has_room(&mut self) -> bool {
        if self.held && !self.has_reader_in_the_way() {
            self.held = false;
            self.due = Some(Instant::now());
        }
        let output = &self.process.output;
        if output.in_memory() < TAIL {
            self.patience = None;
            return true;
        }
        if output.disk() == Disk::Writable {
            return false;
        }
        let now = Instant::now();
        let patience = *self.patience.get_or_insert(now + READER_PATIENCE);
        if output.has_reader_behind() && now < patience {
            return false;
        }
        output.forget_beyond(TAIL / 2);
        true
    }

    /// There is new output.
    pub fn note_output(&mut self) {
        if self.held {
            return;
        }
        let now = Instant::now();
        if self.process.output.disk() == Disk::Writable && self.process.output.in_memory() >= MUCH {
            self.due = Some(now);
        } else if self.due.is_none() {
            self.due = Some(now + LINGER);
        }
    }

    /// The leader has ended.
    pub fn note_end(&mut self) {
        if self.job.is_some() || !self.is_complete() {
            self.due = Some(Instant::now());
        }
    }

    /// Does what is to be done next, and waits when there is nothing. May be dropped at any time.
    pub async fn work(&mut self) {
        if let Some(job) = &mut self.job {
            let done = job.await;
            self.job = None;
            self.take(done.unwrap_or_else(|error| Done { ring: None, result: Err(io::Error::other(error)) }));
            return;
        }
        tokio::select! {
            () = sleep_until(self.due) => self.begin(),
            () = sleep_until(self.patience) => {}
            () = self.process.output.reader_progress(), if self.patience.is_some() || self.held => {}
        }
    }

    /// Stores the rest and the end of the process.
    pub async fn finish(mut self) {
        if self.job.is_some() {
            self.work().await;
        }
        while !self.is_complete() {
            self.begin();
            self.work().await;
            if !self.held {
                self.process.output.forget_beyond(LAST_WORDS);
                return;
            }
            let output = Arc::clone(&self.process.output);
            loop {
                let progress = output.reader_progress();
                if !self.has_reader_in_the_way() {
                    break;
                }
                progress.await;
            }
        }
    }

    /// Whether the ring could not go on without taking output from a reader that waits for it.
    fn has_reader_in_the_way(&self) -> bool {
        self.ring.as_ref().is_some_and(|ring| !ring.may_turn_over(self.process.output.bound()))
    }

    /// Whether nothing is left to write.
    fn is_complete(&self) -> bool {
        let end_is_due = match &self.ring {
            Some(ring) => !ring.has_end(),
            None => self.process.facts.detached,
        };
        !end_is_due && self.process.output.unstored().is_empty()
    }

    fn begin(&mut self) {
        self.due = None;
        let (ring, keep, capacity, process) =
            (self.ring.take(), self.keep.clone(), self.capacity, Arc::clone(&self.process));
        self.job = Some(tokio::task::spawn_blocking(move || write(ring, &keep, capacity, &process)));
    }

    fn take(&mut self, done: Done) {
        self.ring = done.ring;
        if let Some(ring) = &self.ring {
            self.process.output.stored(ring.next(), ring.segments());
        }
        self.held = matches!(done.result, Ok(false));
        let disk = if done.result.is_ok() { Disk::Writable } else { Disk::Failed };
        self.process.output.set_disk(disk);
        if disk == Disk::Failed {
            self.due = Some(Instant::now() + RETRY);
        } else if self.process.output.in_memory() > 0 {
            self.note_output();
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn write(ring: Option<Ring>, keep: &Keep, capacity: u64, process: &Process) -> Done {
    let described = process.describe();
    let ring = match ring {
        Some(ring) => Ok(ring),
        None => keep.directory().and_then(|directory| Ring::create(directory, &described, capacity)),
    };
    match ring {
        Ok(mut ring) => Done { result: write_to(&mut ring, process, &described), ring: Some(ring) },
        Err(error) => Done { ring: None, result: Err(error) },
    }
}

fn write_to(ring: &mut Ring, process: &Process, described: &wire::Process) -> io::Result<bool> {
    let unstored = process.output.unstored();
    let ended = described.ended.as_option();
    let last = ended.map_or(0, |ended| unstored.partition_point(|chunk| chunk.end() <= ended.offset));
    ring.append(described, &unstored[..last], || Bound::Outgrow)?;
    if ended.is_some() && !ring.has_end() {
        ring.end(described)?;
    }
    ring.append(described, &unstored[last..], || process.output.bound())?;
    Ok(unstored.last().is_none_or(|chunk| chunk.end() <= ring.next()))
}
