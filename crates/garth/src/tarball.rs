//! Files of this machine as a tar stream, read by a thread while the request that carries it is sent.
//!
//! Owners, modes, times, hard links, symbolic links and extended attributes are kept. Symbolic links
//! are never followed.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use http_body::{Body, Frame};
use tar::{EntryType, Header};
use tokio::sync::mpsc;

use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// One piece of the stream.
const PIECE: usize = 256 << 10;
/// How many pieces wait at most: the reader runs a little ahead of the socket.
const AHEAD: usize = 4;

/// A request body that a thread fills.
#[derive(Debug)]
pub struct Stream(mpsc::Receiver<io::Result<Bytes>>);

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.get_mut().0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// What the thread that fills a body could not read.
#[derive(Debug, Clone, Default)]
pub struct Reading(Arc<Mutex<Option<Failure>>>);

impl Reading {
    /// Fails if something could not be read; that the other side stopped taking it is its own failure.
    pub fn check(&self) -> Result<()> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) if failure.exit != Exit::ReaderGone => Err(failure),
            _ => Ok(()),
        }
    }
}

/// The bytes of a reader as they are.
pub fn bytes(name: &Path, mut reader: impl Read + Send + 'static) -> (Stream, Reading) {
    let name = name.to_owned();
    filled(move |out| {
        let copied = io::copy(&mut reader, out);
        copied.map(|_| None).map_err(|error| Failure::io(format!("cannot read {}", name.display()), &error))
    })
}

/// What is taken into a tar beside files, directories and links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Devices and FIFOs too: whoever reads the tar decides. Sockets are left out.
    Pass,
    /// Nothing: they are left out, and the first of them is a failure once the rest is copied.
    LeaveOut,
}

/// A file or directory, called `name` in the tar (empty: its content without itself).
pub fn tree(path: PathBuf, name: PathBuf, special: Special) -> (Stream, Reading) {
    filled(move |out| {
        let mut tree = Tree { tar: tar::Builder::new(out), links: HashMap::new(), special, left_out: None };
        tree.add(&path, &name)?;
        let finished = tree.tar.finish();
        finished.map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
        Ok(tree.left_out)
    })
}

/// Runs `fill` on a thread. What it fails with breaks the stream off, so that whoever reads does not
/// take the part for the whole; what it returns is a failure beside a whole stream.
fn filled(fill: impl FnOnce(&mut Pieces) -> Result<Option<Failure>> + Send + 'static) -> (Stream, Reading) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let reading = Reading::default();
    let failed = reading.clone();
    thread::spawn(move || {
        let mut pieces = Pieces { sender, piece: Vec::with_capacity(PIECE) };
        let filled = fill(&mut pieces);
        let flushed = |beside| pieces.flush().map(|()| beside).map_err(|error| Failure::io("cannot send", &error));
        let sent = filled.and_then(flushed);
        let broken = sent.is_err();
        *failed.0.lock().unwrap_or_else(PoisonError::into_inner) = sent.unwrap_or_else(Some);
        if broken {
            let _ = pieces.sender.blocking_send(Err(io::Error::other("the tar could not be finished")));
        }
    });
    (Stream(receiver), reading)
}

/// Collects what is written into pieces and sends them.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(data.get(..taken).unwrap_or_default());
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        // The request ended before its body: its answer says why.
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

struct Tree<W: Write> {
    tar: tar::Builder<W>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
    special: Special,
    left_out: Option<Failure>,
}

impl<W: Write> Tree<W> {
    fn add(&mut self, path: &Path, name: &Path) -> Result<()> {
        let cannot = |error: io::Error| Failure::io(format!("cannot read {}", path.display()), &error);
        let meta = fs::symlink_metadata(path).map_err(cannot)?;
        if meta.is_dir() {
            return self.add_directory(path, name, &meta);
        }
        let mut header = header(&meta);
        if let Some(first) = self.first_name(&meta, name) {
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            return self.tar.append_link(&mut header, name, first).map_err(cannot);
        }
        if meta.is_symlink() {
            let target = fs::read_link(path).map_err(cannot)?;
            header.set_entry_type(EntryType::Symlink);
            self.attributes(path).map_err(cannot)?;
            return self.tar.append_link(&mut header, name, target).map_err(cannot);
        }
        if meta.is_file() { self.add_file(path, name, &mut header) } else { self.add_special(path, name, &meta) }
    }

    /// Where the same file is in the tar already.
    fn first_name(&mut self, meta: &Metadata, name: &Path) -> Option<PathBuf> {
        if meta.nlink() < 2 {
            return None;
        }
        let inode = (meta.dev(), meta.ino());
        let first = self.links.get(&inode).cloned();
        if first.is_none() {
            self.links.insert(inode, name.to_owned());
        }
        first
    }

    fn add_directory(&mut self, path: &Path, name: &Path, meta: &Metadata) -> Result<()> {
        let cannot = |error: io::Error| Failure::io(format!("cannot read {}", path.display()), &error);
        let mut header = header(meta);
        header.set_entry_type(EntryType::Directory);
        self.attributes(path).map_err(cannot)?;
        let own_name = if name.as_os_str().is_empty() { Path::new("./") } else { name };
        self.tar.append_data(&mut header, own_name, io::empty()).map_err(cannot)?;
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(cannot)?;
        let mut names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
        names.sort();
        names.iter().try_for_each(|entry| self.add(&path.join(entry), &name.join(entry)))
    }

    fn add_file(&mut self, path: &Path, name: &Path, header: &mut Header) -> Result<()> {
        let cannot = |error: io::Error| Failure::io(format!("cannot read {}", path.display()), &error);
        let file = File::open(path).map_err(cannot)?;
        // What is open is what the header says, whatever the path means by now.
        let size = file.metadata().map_err(cannot)?.len();
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        self.attributes(path).map_err(cannot)?;
        let mut exactly = Exactly { reader: file, left: size };
        self.tar.append_data(header, name, &mut exactly).map_err(cannot)
    }

    fn add_special(&mut self, path: &Path, name: &Path, meta: &Metadata) -> Result<()> {
        let kind = meta.file_type();
        let (entry, what) = match () {
            () if kind.is_fifo() => (Some(EntryType::Fifo), "a FIFO"),
            () if kind.is_block_device() => (Some(EntryType::Block), "a block device"),
            () if kind.is_char_device() => (Some(EntryType::Char), "a character device"),
            () => (None, "a socket"),
        };
        if self.special == Special::LeaveOut {
            self.left_out.get_or_insert_with(|| not_copied(path, what));
            return Ok(());
        }
        let Some(entry) = entry else { return Ok(()) };
        let cannot = |error: io::Error| Failure::io(format!("cannot read {}", path.display()), &error);
        let mut header = header(meta);
        header.set_entry_type(entry);
        let device = meta.rdev();
        header.set_device_major(rustix::fs::major(device)).map_err(cannot)?;
        header.set_device_minor(rustix::fs::minor(device)).map_err(cannot)?;
        self.tar.append_data(&mut header, name, io::empty()).map_err(cannot)
    }

    /// Extended attributes, `security.capability` among them, as PAX records before the entry.
    fn attributes(&mut self, path: &Path) -> io::Result<()> {
        let records: Vec<(String, Vec<u8>)> = attributes(path)?;
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.tar.append_pax_extensions(records)
    }
}

/// A failure for what is neither file, directory nor link.
pub fn not_copied(path: &Path, what: &str) -> Failure {
    let message = format!("{} is {what}; only files, directories and links are copied", path.display());
    Failure::new(Exit::Refused, "not_copied", message)
}

fn header(meta: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(meta.uid().into());
    header.set_gid(meta.gid().into());
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// `SCHILY.xattr.NAME`, as GNU tar, bsdtar and Docker write them. A filesystem without them has none.
fn attributes(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    names.truncate(length);
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let name = String::from_utf8_lossy(name).into_owned();
        match rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]) {
            Ok(length) => value.truncate(length),
            // Gone since it was listed, or not for us to see (trusted.* without the capability).
            Err(_) => continue,
        }
        found.push((format!("SCHILY.xattr.{name}"), value));
    }
    Ok(found)
}

/// As many bytes as the header says, or an error: a tar cannot carry more or fewer.
struct Exactly {
    reader: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.reader.read(buffer.get_mut(..most).unwrap_or_default())?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
