//! Whether a file is still what the base has.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, Statx};

use super::cursor::handle;
use super::digest::BLOCK;
use super::entry::{change_time, device, facts, file_type};
use crate::xattrs::Xattrs;

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    pub directory: BorrowedFd<'a>,
    pub name: &'a OsStr,
}

/// Compares, with room for it.
#[derive(Debug)]
pub struct Same {
    xattrs: Xattrs,
    pieces: [Vec<u8>; 2],
}

impl Same {
    /// Nothing compared yet.
    pub fn new() -> Self {
        Self { xattrs: Xattrs::new(), pieces: [vec![0; BLOCK], vec![0; BLOCK]] }
    }

    /// Whether both are the same in all that is moved. A file that an overlay shows from below has the change time that
    /// it has there, and is not read; one that was copied up and is as it was counts as the same.
    pub fn are(&mut self, here: Spot<'_>, is: &Statx, base: Spot<'_>, was: &Statx) -> io::Result<bool> {
        let kind = file_type(is);
        let directory = kind == FileType::Directory;
        let sized = |stat: &Statx| if directory { (0, 0) } else { (stat.stx_size, stat.stx_nlink) };
        if is.stx_mode != was.stx_mode
            || facts(is) != facts(was)
            || sized(is) != sized(was)
            || device(is) != device(was)
        {
            return Ok(false);
        }
        if change_time(is) == change_time(was) {
            return Ok(true);
        }
        if self.xattrs.of(&handle(here.directory, here.name))? != self.xattrs.of(&handle(base.directory, base.name))? {
            return Ok(false);
        }
        match kind {
            FileType::Symlink => {
                let target = |spot: Spot<'_>| rustix::fs::readlinkat(spot.directory, spot.name, Vec::new());
                Ok(target(here)? == target(base)?)
            }
            FileType::RegularFile => self.contents(open(here)?, open(base)?),
            _ => Ok(true),
        }
    }

    fn contents(&mut self, mut here: File, mut base: File) -> io::Result<bool> {
        let [one, other] = &mut self.pieces;
        loop {
            let count = fill(&mut here, one)?;
            if count != fill(&mut base, other)? || one[..count] != other[..count] {
                return Ok(false);
            }
            if count == 0 {
                return Ok(true);
            }
        }
    }
}

/// A regular file for reading; a FIFO put in its place must not block, nor a link be followed.
pub fn open(spot: Spot<'_>) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(spot.directory, spot.name, flags, Mode::empty())?))
}

fn fill(file: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < piece.len() {
        match io::Read::read(file, &mut piece[count..])? {
            0 => break,
            more => count += more,
        }
    }
    Ok(count)
}
