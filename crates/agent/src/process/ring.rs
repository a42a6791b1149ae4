//! The kept output of one process on the project's disk: a few files that are only appended to, the oldest of which goes
//! when a new one begins.
//!
//! ```text
//! <id>.0  [header: start offset, Process] [stdout 0..n] [stderr n..m] …      (removed when <id>.4 begins)
//! <id>.3  [header: start offset, Process] … [end: Process]
//! ```
//!
//! A record is a length, a kind and its bytes. A record cut short by a crash ends its file. Everything here blocks: run it
//! off the main thread.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use buffa::Message;
use bytes::Bytes;
use garth_protocol::agent::{Process, Stream};
use rustix::fs::{AtFlags, Mode, OFlags};

/// How many files one process has at most.
const FILES: u64 = 4;
const RECORD: usize = 8;
/// A header or end record above this is not ours.
const LONGEST_RECORD: usize = 16 << 20;
const KIND_HEADER: u32 = 16;
const KIND_END: u32 = 17;

/// Output that was read in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub stream: Stream,
    pub offset: u64,
    pub data: Bytes,
}

impl Chunk {
    /// The offset after its last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    /// What of it lies at `position` and after; `None` when nothing does.
    pub fn from(&self, position: u64) -> Option<Self> {
        if position <= self.offset {
            return Some(self.clone());
        }
        let skip = usize::try_from(position - self.offset).ok().filter(|skip| *skip < self.data.len())?;
        Some(Self { stream: self.stream, offset: position, data: self.data.slice(skip..) })
    }
}

/// The directory that holds the kept output of all processes.
#[derive(Debug, Clone)]
pub struct Directory(Arc<OwnedFd>);

/// Makes and opens the directory when it is first needed: a sandbox whose processes write nothing costs no file.
#[derive(Debug, Clone)]
pub struct Keep(Arc<(OwnedFd, OnceLock<Directory>)>);

impl Keep {
    /// A directory below the agent's state directory.
    pub fn below(state: OwnedFd) -> Self {
        Self(Arc::new((state, OnceLock::new())))
    }

    /// The agent's state directory, which is on the project's disk.
    pub fn state(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }

    /// Whether this sandbox has stored anything yet.
    pub fn is_used(&self) -> bool {
        self.0.1.get().is_some()
    }

    /// The directory. Blocks.
    pub fn directory(&self) -> io::Result<Directory> {
        let (state, opened) = &*self.0;
        match opened.get() {
            Some(directory) => Ok(directory.clone()),
            None => Directory::open(state).map(|directory| opened.get_or_init(|| directory).clone()),
        }
    }
}

/// One file of a ring: its number in the name, and the offset of its first byte of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub number: u64,
    pub start: u64,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// As it was when the segment began, or when the process ended.
    pub process: Process,
    pub start: u64,
    pub chunks: Vec<Chunk>,
    /// The offset after the last byte that was looked at.
    pub next: u64,
    /// The process had ended when the last record was written.
    pub ended: bool,
}

impl Directory {
    /// Makes `processes` below the agent's state directory where missing.
    pub fn open(state: impl AsFd) -> io::Result<Self> {
        match rustix::fs::mkdirat(&state, "processes", Mode::from_raw_mode(0o700)) {
            Err(rustix::io::Errno::EXIST) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(Arc::new(rustix::fs::openat(state, "processes", flags, Mode::empty())?)))
    }

    /// The segments of every process, by id, unsorted.
    pub fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if let Some((id, number)) = name.rsplit_once('.')
                && let Ok(number) = number.parse()
            {
                found.push((id.to_owned(), number));
            }
        }
        Ok(found)
    }

    /// Bytes that a segment takes; 0 when it is gone.
    pub fn size(&self, id: &str, number: u64) -> u64 {
        rustix::fs::statat(&self.0, file_name(id, number), AtFlags::SYMLINK_NOFOLLOW)
            .map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// When a segment was last written, in seconds since 1970.
    pub fn written_at(&self, id: &str, number: u64) -> i64 {
        rustix::fs::statat(&self.0, file_name(id, number), AtFlags::SYMLINK_NOFOLLOW).map_or(0, |stat| stat.st_mtime)
    }

    /// Removes a segment; gone already is no error.
    pub fn remove(&self, id: &str, number: u64) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, file_name(id, number), AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes all that is kept of a process.
    pub fn remove_all(&self, id: &str) -> io::Result<()> {
        self.list()?.iter().filter(|(other, _)| other == id).try_for_each(|(_, number)| self.remove(id, *number))
    }

    /// Reads a segment: all of it, but only the chunks that reach beyond `position`, up to `limit` bytes of them.
    pub fn read(&self, id: &str, number: u64, position: u64, limit: usize) -> io::Result<Contents> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, file_name(id, number), flags, Mode::empty())?;
        let mut contents = Contents::default();
        let mut reader = io::BufReader::with_capacity(64 << 10, std::fs::File::from(file));
        let mut offset = 0;
        let mut taken = 0;
        while taken < limit
            && let Some((kind, length)) = record_header(&mut reader)?
        {
            let stream = stream_of(kind);
            if stream.is_some() && offset + length as u64 <= position {
                reader.seek_relative(length as i64)?;
                offset += length as u64;
                contents.next = offset;
                continue;
            }
            let Some(data) = record_data(&mut reader, length)? else { break };
            match (stream, kind) {
                (Some(stream), _) => {
                    let chunk = Chunk { stream, offset, data };
                    offset = chunk.end();
                    contents.next = offset;
                    taken += chunk.data.len();
                    contents.chunks.extend(chunk.from(position));
                }
                (None, KIND_HEADER) if data.len() >= 8 => {
                    offset = u64::from_le_bytes(data[..8].try_into().expect("8 bytes"));
                    contents.start = offset;
                    contents.next = offset;
                    contents.process = decode(&data[8..])?;
                }
                (None, KIND_END) => {
                    contents.process = decode(&data)?;
                    contents.ended = true;
                }
                _ => break,
            }
        }
        Ok(contents)
    }
}

fn decode(data: &[u8]) -> io::Result<Process> {
    Process::decode_from_slice(data).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn file_name(id: &str, number: u64) -> String {
    format!("{id}.{number}")
}

fn stream_of(kind: u32) -> Option<Stream> {
    [Stream::STREAM_STDOUT, Stream::STREAM_STDERR, Stream::STREAM_TERMINAL].into_iter().find(|s| *s as u32 == kind)
}

/// `None` at the end of the file, also at one that comes too early.
fn record_header(reader: &mut impl Read) -> io::Result<Option<(u32, usize)>> {
    let mut header = [0u8; RECORD];
    match reader.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let length = number(0) as usize;
    Ok((length <= LONGEST_RECORD).then_some((number(4), length)))
}

fn record_data(reader: &mut impl Read, length: usize) -> io::Result<Option<Bytes>> {
    let mut data = Vec::with_capacity(length.min(1 << 20));
    reader.take(length as u64).read_to_end(&mut data)?;
    Ok((data.len() == length).then(|| data.into()))
}

/// What gives way when a ring is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The oldest output.
    Drop,
    /// The oldest output, but none from this offset on.
    KeepFrom(u64),
    /// The ring's capacity.
    Outgrow,
}

/// The writing end of a process's ring.
#[derive(Debug)]
pub struct Ring {
    directory: Directory,
    id: String,
    segments: Vec<Segment>,
    file: OwnedFd,
    /// Bytes in the newest file.
    size: u64,
    /// The size at which the next file begins.
    turn: u64,
    /// The offset after the last byte of output in it.
    next: u64,
    /// The process's end is in it.
    ended: bool,
}

impl Ring {
    /// Makes the first file. `capacity` is in bytes, for all files together. What an earlier sandbox kept under the same
    /// id goes.
    pub fn create(directory: Directory, process: &Process, capacity: u64) -> io::Result<Self> {
        let first = Segment { number: 0, start: 0 };
        let id = process.id.clone();
        let (file, size) = match begin(&directory, process, first) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                directory.remove_all(&id)?;
                begin(&directory, process, first)?
            }
            other => other?,
        };
        let turn = (capacity / FILES).max(4096);
        Ok(Self { directory, id, segments: vec![first], file, size, turn, next: 0, ended: false })
    }

    /// The files that exist, oldest first.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The offset after the last byte of output in it.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Appends chunks that follow each other; neighbours of one stream become one record. It ends early where it would have
    /// to break the bound of that moment. [`next`](Self::next) says how far it came, also after an error.
    pub fn append(&mut self, process: &Process, chunks: &[Chunk], bound: impl Fn() -> Bound) -> io::Result<()> {
        let most = usize::try_from(self.turn / 2).unwrap_or(usize::MAX);
        for group in chunks.chunk_by(|a, b| a.stream == b.stream).flat_map(|group| pieces(group, most)) {
            let length: usize = group.iter().map(|chunk| chunk.data.len()).sum();
            let empty = self.segments.last().is_some_and(|segment| segment.start == self.next);
            let bound = bound();
            let full = !empty && bound != Bound::Outgrow && self.size + length as u64 > self.turn;
            // Offsets are counted from the file's first, so a hole needs a new file.
            if full || self.next != group[0].offset {
                if !self.may_turn_over(bound) {
                    return Ok(());
                }
                self.turn_over(process, group[0].offset)?;
            }
            let mut record = record(group[0].stream as u32, length);
            group.iter().for_each(|chunk| record.extend_from_slice(&chunk.data));
            self.write(&record)?;
            self.next = group[0].offset + length as u64;
        }
        Ok(())
    }

    /// Whether the process's end is in it.
    pub fn has_end(&self) -> bool {
        self.ended
    }

    /// Adds the process as it ended. What it left behind may still write.
    pub fn end(&mut self, process: &Process) -> io::Result<()> {
        let data = process.encode_to_vec();
        let mut record = record(KIND_END, data.len());
        record.extend_from_slice(&data);
        self.write(&record)?;
        self.ended = true;
        Ok(())
    }

    /// Whether the next file may begin: the oldest goes then.
    pub fn may_turn_over(&self, bound: Bound) -> bool {
        match bound {
            Bound::KeepFrom(offset) => {
                (self.segments.len() as u64) < FILES
                    || self.segments.get(1).is_some_and(|second| second.start <= offset)
            }
            Bound::Drop | Bound::Outgrow => true,
        }
    }

    fn turn_over(&mut self, process: &Process, start: u64) -> io::Result<()> {
        let number = self.segments.last().map_or(0, |last| last.number + 1);
        // The oldest goes first, so that a full disk has room for the new one.
        while self.segments.len() as u64 >= FILES {
            let oldest = self.segments.remove(0);
            self.directory.remove(&self.id, oldest.number)?;
        }
        let segment = Segment { number, start };
        (self.file, self.size) = begin(&self.directory, process, segment)?;
        self.next = start;
        self.segments.push(segment);
        Ok(())
    }

    fn write(&mut self, record: &[u8]) -> io::Result<()> {
        write_all(&self.file, record).inspect_err(|_| {
            // Half a record would end the file for readers; a whole one fewer does not.
            let _ = rustix::fs::ftruncate(&self.file, self.size);
        })?;
        self.size += record.len() as u64;
        Ok(())
    }
}

/// Parts of at most `most` bytes, or of one chunk: what came in a rush must not make one file as large as all should be.
fn pieces(mut chunks: &[Chunk], most: usize) -> impl Iterator<Item = &[Chunk]> {
    std::iter::from_fn(move || {
        let mut length = 0;
        let fits = |chunk: &&Chunk| {
            length += chunk.data.len();
            length <= most
        };
        let count = chunks.iter().take_while(fits).count().max(1).min(chunks.len());
        let (piece, rest) = chunks.split_at(count);
        chunks = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn record(kind: u32, length: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD + length);
    record.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    record.extend_from_slice(&kind.to_le_bytes());
    record
}

fn begin(directory: &Directory, process: &Process, segment: Segment) -> io::Result<(OwnedFd, u64)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = file_name(&process.id, segment.number);
    let file = rustix::fs::openat(&directory.0, name, flags, Mode::from_raw_mode(0o600))?;
    let data = process.encode_to_vec();
    let mut header = record(KIND_HEADER, 8 + data.len());
    header.extend_from_slice(&segment.start.to_le_bytes());
    header.extend_from_slice(&data);
    if let Err(error) = write_all(&file, &header) {
        let _ = directory.remove(&process.id, segment.number);
        return Err(error);
    }
    Ok((file, header.len() as u64))
}

fn write_all(file: &OwnedFd, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(file, data))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => data = &data[count..],
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let state = std::fs::File::open(temporary.path()).expect("open");
        let directory = Directory::open(&state).expect("processes");
        (temporary, directory)
    }

    fn process() -> Process {
        Process { id: "p1".to_owned(), argv: vec!["sh".to_owned()], ..Default::default() }
    }

    fn chunk(stream: Stream, offset: u64, data: &'static [u8]) -> Chunk {
        Chunk { stream, offset, data: Bytes::from_static(data) }
    }

    #[test]
    fn output_is_read_back_in_order_from_any_offset() {
        let (_temporary, directory) = directory();
        let mut ring = Ring::create(directory.clone(), &process(), 1 << 20).expect("create");
        let chunks = [chunk(Stream::STREAM_STDOUT, 0, b"hello"), chunk(Stream::STREAM_STDERR, 5, b"oops")];
        ring.append(&process(), &chunks, || Bound::Drop).expect("append");
        ring.end(&Process { pid: 7, ..process() }).expect("end");
        let all = directory.read("p1", 0, 0, usize::MAX).expect("read");
        assert_eq!(all.chunks, chunks);
        assert_eq!((all.ended, all.process.pid), (true, 7));
        let rest = directory.read("p1", 0, 6, usize::MAX).expect("read");
        assert_eq!(rest.chunks, [chunk(Stream::STREAM_STDERR, 6, b"ops")]);
    }

    #[test]
    fn oldest_output_goes_when_the_ring_is_full() {
        let (_temporary, directory) = directory();
        let mut ring = Ring::create(directory.clone(), &process(), 16 << 10).expect("create");
        let block: &[u8] = &[b'x'; 1024];
        for at in 0..64u64 {
            let chunk = Chunk { stream: Stream::STREAM_STDOUT, offset: at * 1024, data: Bytes::copy_from_slice(block) };
            ring.append(&process(), &[chunk], || Bound::Drop).expect("append");
        }
        assert_eq!(ring.segments().len(), 4);
        let total: u64 = directory.list().expect("list").iter().map(|(id, number)| directory.size(id, *number)).sum();
        assert!(total <= (16 << 10) + 4 * 2048, "{total}");
        let oldest = ring.segments()[0];
        let contents = directory.read("p1", oldest.number, 0, usize::MAX).expect("read");
        assert_eq!((contents.start, contents.chunks[0].offset), (oldest.start, oldest.start));
    }

    #[test]
    fn a_record_cut_short_ends_the_file() {
        let (temporary, directory) = directory();
        let mut ring = Ring::create(directory.clone(), &process(), 1 << 20).expect("create");
        ring.append(&process(), &[chunk(Stream::STREAM_STDOUT, 0, b"whole")], || Bound::Drop).expect("append");
        ring.append(&process(), &[chunk(Stream::STREAM_STDERR, 5, b"cut short")], || Bound::Drop).expect("append");
        let path = temporary.path().join("processes/p1.0");
        let length = std::fs::metadata(&path).expect("metadata").len();
        std::fs::OpenOptions::new().write(true).open(&path).expect("open").set_len(length - 3).expect("cut");
        let contents = directory.read("p1", 0, 0, usize::MAX).expect("read");
        assert_eq!(contents.chunks, [chunk(Stream::STREAM_STDOUT, 0, b"whole")]);
        assert!(!contents.ended);
    }
}
