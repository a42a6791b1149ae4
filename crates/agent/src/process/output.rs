//! What a process has written: newest in memory until it is on disk, older in its [`Ring`], to be read from any offset by
//! any number of readers.
//!
//! ```text
//! pump --push--> tail --(next turn of the main loop)--> readers
//!                  \--(20 ms later, or when much)--> ring on disk --> readers that are behind
//! ```
//!
//! Readers come first and the disk second, so a process that writes little costs its caller no disk access. A reader that
//! is slow reads from disk later; memory stays below [`TAIL`] per process. A process waits for the reader that started it
//! before the ring overtakes that, and for others only when the disk is full, and then not for ever. What it wrote before
//! its end pushes nothing out: who reads it afterwards finds it without a hole.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use garth_protocol::agent::{Ended, Stream};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::ring::{Bound, Chunk, Keep, Segment};
use crate::lock;

/// Bytes in memory at which the process waits for the disk.
pub const TAIL: usize = 512 << 10;
/// Bytes that a reader takes from disk at once.
const BATCH: usize = 256 << 10;

/// See the module.
#[derive(Debug, Default)]
pub struct Output {
    state: Mutex<State>,
    changed: Notify,
    /// Woken when a reader has moved on.
    progress: Notify,
}

#[derive(Debug, Default)]
struct State {
    tail: VecDeque<Chunk>,
    tail_bytes: usize,
    next: u64,
    /// All below is on disk.
    stored: u64,
    disk: Disk,
    segments: Vec<Segment>,
    ended: Option<Ended>,
    /// Each live reader.
    readers: Vec<Reading>,
    next_reader: u64,
}

/// Where a reader is.
#[derive(Debug, Clone, Copy)]
struct Reading {
    key: u64,
    position: u64,
    /// Nothing may be lost to it.
    holds: bool,
}

/// Whether the ring takes output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Disk {
    /// As far as known.
    #[default]
    Writable,
    /// It failed, as a full one does; output is kept in memory, as far as it goes.
    Failed,
}

impl Output {
    /// The output of a process of an earlier sandbox.
    pub fn archived(segments: Vec<Segment>, ended: Ended) -> Self {
        let (next, stored) = (ended.offset, ended.offset);
        Self {
            state: Mutex::new(State { next, stored, segments, ended: Some(ended), ..State::default() }),
            ..Self::default()
        }
    }

    /// Adds output and wakes the readers.
    pub fn push(&self, stream: Stream, data: Bytes) {
        let mut state = lock(&self.state);
        let offset = state.next;
        state.next += data.len() as u64;
        state.tail_bytes += data.len();
        state.tail.push_back(Chunk { stream, offset, data });
        drop(state);
        self.changed.notify_waiters();
    }

    /// The leader has ended; readers that follow get this last.
    pub fn end(&self, mut ended: Ended) {
        let mut state = lock(&self.state);
        ended.offset = state.next;
        state.ended = Some(ended);
        drop(state);
        self.changed.notify_waiters();
    }

    /// How the leader ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        lock(&self.state).ended.clone()
    }

    /// Waits for the leader's end.
    pub async fn wait(&self) -> Ended {
        loop {
            let changed = self.changed.notified();
            if let Some(ended) = self.ended() {
                return ended;
            }
            changed.await;
        }
    }

    /// The oldest offset that can still be read, and the offset of the next byte.
    pub fn range(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.first(), state.next)
    }

    /// Bytes in memory.
    pub fn in_memory(&self) -> usize {
        lock(&self.state).tail_bytes
    }

    /// Output that is not on disk yet.
    pub fn unstored(&self) -> Vec<Chunk> {
        let state = lock(&self.state);
        state.tail.iter().filter_map(|chunk| chunk.from(state.stored)).collect()
    }

    /// All below `end` is on disk, in these files; memory lets go of it.
    pub fn stored(&self, end: u64, segments: &[Segment]) {
        let mut state = lock(&self.state);
        state.stored = end;
        segments.clone_into(&mut state.segments);
        while state.tail.front().is_some_and(|chunk| chunk.end() <= end) {
            state.drop_oldest();
        }
        drop(state);
        // A reader may have to go to the disk now.
        self.changed.notify_waiters();
    }

    /// Whether the disk took what it got last.
    pub fn set_disk(&self, disk: Disk) {
        lock(&self.state).disk = disk;
        self.changed.notify_waiters();
    }

    /// Whether the ring takes output.
    pub fn disk(&self) -> Disk {
        lock(&self.state).disk
    }

    /// Whether some reader has not seen what would be dropped first.
    pub fn has_reader_behind(&self) -> bool {
        let state = lock(&self.state);
        let Some(oldest) = state.tail.front().map(Chunk::end) else { return false };
        state.readers.iter().any(|reader| reader.position < oldest)
    }

    /// What gives way in the ring before output that did not come before the leader's end.
    pub fn bound(&self) -> Bound {
        let state = lock(&self.state);
        // What is read now would be followed by a hole when the last before the end took its place.
        let settling = state.ended.as_ref().is_some_and(|ended| state.stored < ended.offset);
        let held = state.readers.iter().filter(|reader| reader.holds || settling).map(|reader| reader.position).min();
        held.map_or(Bound::Drop, Bound::KeepFrom)
    }

    /// Is done when some reader has moved on since this was called.
    pub fn reader_progress(&self) -> Notified<'_> {
        self.progress.notified()
    }

    /// Drops what is oldest in memory, read or not, until no more than `limit` bytes are left.
    pub fn forget_beyond(&self, limit: usize) {
        let mut state = lock(&self.state);
        while state.tail_bytes > limit {
            state.drop_oldest();
        }
    }
}

impl State {
    fn first(&self) -> u64 {
        let in_memory = self.tail.front().map_or(self.next, |chunk| chunk.offset);
        self.segments.first().map_or(in_memory, |segment| segment.start.min(in_memory))
    }

    fn drop_oldest(&mut self) {
        if let Some(chunk) = self.tail.pop_front() {
            self.tail_bytes -= chunk.data.len();
        }
        if self.tail.is_empty() {
            self.tail.shrink_to_fit();
        }
    }

    /// The next position that is not in this file.
    fn after(&self, number: u64, position: u64) -> u64 {
        let later = self.segments.iter().find(|segment| segment.number > number).map(|segment| segment.start);
        let in_memory = self.tail.front().map_or(self.next, |chunk| chunk.offset);
        later.unwrap_or(in_memory).max(position + 1)
    }

    /// Where the output from `position` on is.
    fn locate(&self, position: u64) -> Place {
        let position = position.max(self.first());
        if position >= self.next {
            return Place::End(self.ended.clone());
        }
        if let Some(chunk) = self.tail.iter().find_map(|chunk| chunk.from(position))
            && chunk.offset == position
        {
            return Place::Memory(chunk);
        }
        match self.segments.iter().rfind(|segment| segment.start <= position) {
            Some(segment) => Place::Disk(segment.number, position),
            // Neither: a hole that a failed disk left. Go on with what there is.
            None => self.tail.front().map_or(Place::End(self.ended.clone()), |chunk| Place::Memory(chunk.clone())),
        }
    }
}

enum Place {
    Memory(Chunk),
    Disk(u64, u64),
    End(Option<Ended>),
}

/// What a reader gets next.
#[derive(Debug)]
pub enum Next {
    /// Output.
    Chunk(Chunk),
    /// All has been read, and the leader has ended.
    Ended(Ended),
    /// All that there is for now has been read.
    Nothing,
}

/// Reads a process's output from an offset on.
#[derive(Debug)]
pub struct Reader {
    output: Arc<Output>,
    id: String,
    keep: Option<Keep>,
    key: u64,
    position: u64,
    /// Read from disk and not handed out yet.
    batch: VecDeque<Chunk>,
}

impl Reader {
    /// A reader that begins at `position`, or with what comes next.
    pub fn new(output: Arc<Output>, id: String, keep: Option<Keep>, position: Option<u64>) -> Self {
        let mut state = lock(&output.state);
        let position = position.unwrap_or(state.next);
        let key = state.next_reader;
        state.next_reader += 1;
        state.readers.push(Reading { key, position, holds: false });
        drop(state);
        Self { output, id, keep, key, position, batch: VecDeque::new() }
    }

    /// From now on the process waits before anything is lost to this reader, for as long as it is there: what a program
    /// writes reaches who started it, however slowly that reads.
    #[must_use]
    pub fn holding(self) -> Self {
        let mut state = lock(&self.output.state);
        if let Some(reader) = state.readers.iter_mut().find(|reader| reader.key == self.key) {
            reader.holds = true;
        }
        drop(state);
        self
    }

    /// What comes next; waits for it.
    pub async fn next(&mut self) -> Next {
        let output = Arc::clone(&self.output);
        loop {
            // It is woken by all that happens after it was made, so nothing is missed between the look and the wait.
            let changed = output.changed.notified();
            match self.now().await {
                Next::Nothing => changed.await,
                next => return next,
            }
        }
    }

    /// What there is now.
    pub async fn now(&mut self) -> Next {
        loop {
            if let Some(chunk) = self.batch.pop_front() {
                return self.hand_out(chunk);
            }
            let place = lock(&self.output.state).locate(self.position);
            match place {
                Place::Memory(chunk) => return self.hand_out(chunk),
                Place::End(None) => return Next::Nothing,
                Place::End(Some(ended)) => return Next::Ended(ended),
                Place::Disk(number, position) => self.read_disk(number, position).await,
            }
        }
    }

    fn hand_out(&mut self, chunk: Chunk) -> Next {
        self.position = chunk.end();
        let mut state = lock(&self.output.state);
        if let Some(reader) = state.readers.iter_mut().find(|reader| reader.key == self.key) {
            reader.position = self.position;
        }
        drop(state);
        self.output.progress.notify_waiters();
        Next::Chunk(chunk)
    }

    /// Fills the batch, or moves on past a file that is gone or broken.
    async fn read_disk(&mut self, number: u64, position: u64) {
        let (keep, id) = (self.keep.clone(), self.id.clone());
        let read = tokio::task::spawn_blocking(move || keep?.directory().ok()?.read(&id, number, position, BATCH).ok());
        if let Ok(Some(contents)) = read.await {
            self.batch = contents.chunks.into();
        }
        if self.batch.is_empty() {
            self.position = lock(&self.output.state).after(number, position);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.output.state).readers.retain(|reader| reader.key != self.key);
        self.output.progress.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
