//! What each request is answered: bytes in, bytes out.

use std::io;

use rustix::io::Errno;

use crate::snapshots::Snapshots;
use crate::tree::{Inode, NODES, Node};
use crate::wire::{Answer, Attributes, FOPEN_DIRECT_IO, FOPEN_NOFLUSH, Operation, Request, name_size};

/// To whom the files belong, in the ids of the user namespace that mounted. With 0 they are root's; a sandbox with ids
/// of its own sees root only if its root's id is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Where the text of a file comes from.
pub(crate) trait Source {
    fn render(&mut self, node: Node, out: &mut Vec<u8>) -> io::Result<()>;
}

/// The state of a connection.
#[derive(Debug)]
pub(crate) struct Session {
    owner: Owner,
    /// When the files were made, in seconds since 1970.
    made: u64,
    snapshots: Snapshots,
    next_handle: u64,
    text: Vec<u8>,
}

const READ_ONLY: u32 = 0;
const ACCESS_MODE: u32 = 3;
const MAY_WRITE: u32 = 2;
const MAY_EXECUTE: u32 = 1;

impl Session {
    /// `first_handle` is larger than any of an earlier server's on the same connection, which are still read.
    pub(crate) fn new(owner: Owner, made: u64, first_handle: u64) -> Self {
        Self { owner, made, snapshots: Snapshots::default(), next_handle: first_handle, text: Vec::new() }
    }

    /// Leaves the answer in `out`: nothing if there is to be none.
    pub(crate) fn answer(&mut self, request: &[u8], source: &mut impl Source, out: &mut Vec<u8>) {
        out.clear();
        let Some(request) = Request::parse(request) else { return };
        let answer = match request.operation {
            Operation::Silent => return,
            _ => Answer::to(request.unique, out),
        };
        match (request.operation, Inode::from_id(request.node)) {
            (Operation::Init { major, minor }, _) => match (major, minor) {
                // A kernel with a newer protocol than 7 asks again when told 7.
                (..7, _) | (7, ..31) => answer.error(Errno::PROTO),
                _ => answer.init().done(),
            },
            (Operation::Destroy | Operation::Flush | Operation::ReleaseDir, _) => answer.done(),
            (Operation::Release { handle }, _) => {
                self.snapshots.remove(handle);
                answer.done();
            }
            (Operation::StatFs, _) => answer.statfs(NODES.len() as u64).done(),
            (Operation::Malformed, _) => answer.error(Errno::INVAL),
            (Operation::Unknown, _) => answer.error(Errno::NOSYS),
            (Operation::Ioctl, _) => answer.error(Errno::NOTTY),
            (_, None) => answer.error(Errno::NOENT),
            (operation, Some(inode)) => self.answer_about(inode, operation, source, answer),
        }
    }

    fn answer_about(&mut self, inode: Inode, operation: Operation<'_>, source: &mut impl Source, answer: Answer<'_>) {
        match (operation, inode) {
            (Operation::Lookup { name }, _) => match inode.lookup(name) {
                Some(found) => answer.entry(self.attributes(found)).done(),
                None => answer.error(Errno::NOENT),
            },
            (Operation::GetAttr, _) => answer.attributes(self.attributes(inode)).done(),
            (Operation::SetAttr, _) => answer.error(Errno::ACCESS),
            (Operation::Access { mask }, _) => match inode.is_directory() {
                _ if mask & MAY_WRITE != 0 => answer.error(Errno::ACCESS),
                false if mask & MAY_EXECUTE != 0 => answer.error(Errno::ACCESS),
                _ => answer.done(),
            },
            (Operation::Open { flags }, Inode::File(_)) if flags & ACCESS_MODE == READ_ONLY => {
                let handle = self.next_handle;
                self.next_handle = handle.wrapping_add(1);
                answer.opened(handle, FOPEN_DIRECT_IO | FOPEN_NOFLUSH).done();
            }
            (Operation::Open { .. }, Inode::File(_)) => answer.error(Errno::ACCESS),
            (Operation::Read { handle, offset, size }, Inode::File(node)) => {
                match self.read(handle, node, offset, source) {
                    Ok(rest) => answer.bytes(&rest[..rest.len().min(size as usize)]).done(),
                    Err(_) => answer.error(Errno::IO),
                }
            }
            (Operation::OpenDir, _) if inode.is_directory() => answer.opened(0, 0).done(),
            (Operation::ReadDir { offset, size }, _) if inode.is_directory() => list(inode, offset, size, answer),
            (Operation::OpenDir | Operation::ReadDir { .. }, _) => answer.error(Errno::NOTDIR),
            (Operation::Open { .. } | Operation::Read { .. }, _) => answer.error(Errno::ISDIR),
            _ => answer.error(Errno::NOSYS),
        }
    }

    /// From `offset` to the end of what the file said when it was last read from its start.
    fn read(&mut self, handle: u64, node: Node, offset: u64, source: &mut impl Source) -> io::Result<&[u8]> {
        if offset == 0 || self.snapshots.get(handle).is_none() {
            self.text.clear();
            source.render(node, &mut self.text)?;
            self.snapshots.put(handle, &self.text);
        }
        let text = self.snapshots.get(handle).unwrap_or_default();
        Ok(usize::try_from(offset).ok().and_then(|offset| text.get(offset..)).unwrap_or_default())
    }

    fn attributes(&self, inode: Inode) -> Attributes {
        let Owner { uid, gid } = self.owner;
        let links = if inode.is_directory() { 2 } else { 1 };
        Attributes { inode: inode.id(), mode: mode(inode), links, uid, gid, time: self.made }
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        self.snapshots.size()
    }
}

fn mode(inode: Inode) -> u32 {
    if inode.is_directory() { 0o40_555 } else { 0o100_444 }
}

/// The names after the first `offset` that fit. A position is the number of names before it.
fn list(directory: Inode, offset: u64, size: u32, mut answer: Answer<'_>) {
    let dots = [(directory, "."), (Inode::Root, "..")];
    let names = dots.into_iter().chain(directory.children());
    let names = (1..).zip(names).skip(usize::try_from(offset).unwrap_or(usize::MAX));
    let mut room = size as usize;
    for (next, (inode, name)) in names {
        let Some(rest) = room.checked_sub(name_size(name)) else { break };
        room = rest;
        answer = answer.name(next, inode.id(), mode(inode), name);
    }
    answer.done();
}

#[cfg(test)]
mod tests;
