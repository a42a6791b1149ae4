//! All that is in a tree, in one order that both ends know: a directory before what is in it, names by their bytes.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Statx, Timespec};
use rustix::io::Errno;

use super::cursor::{Cursor, Mounts, names, stat};
use super::entry::{Point, change_time, file_type};
use super::same::{Same, Spot};
use super::{Scope, changed, refused};
use crate::refusal::Refusal;

/// Something in the tree.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Found {
    /// A file of any kind.
    Here(Statx),
    /// Another mount.
    Mount(Point),
    /// Nothing, where the base has something.
    Deleted,
}

/// A walk through a tree. Names come one by one; which one it is, the walk says.
#[derive(Debug)]
pub struct Walk<'a> {
    scope: &'a Scope,
    here: Cursor,
    base: Option<Cursor>,
    frames: Vec<Frame>,
    path: Vec<u8>,
    same: Same,
    /// The directory found last, which is next to be gone into.
    into: Option<(Statx, Step)>,
}

/// A directory that the walk is in.
#[derive(Debug)]
struct Frame {
    waiting: std::vec::IntoIter<Name>,
    /// The length of its path.
    length: usize,
    mount: u64,
    changed: Timespec,
    step: Step,
}

#[derive(Debug)]
struct Name {
    name: Vec<u8>,
    here: bool,
    base: bool,
}

/// What going into a directory means for the place in the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The base has no such directory.
    Alone,
    /// It is the base's top.
    Top,
    /// The base is gone into as well.
    Along,
}

impl<'a> Walk<'a> {
    /// Through all of `scope`.
    pub fn new(scope: &'a Scope) -> Result<Self, Refusal> {
        let here = Cursor::at(&scope.root).map_err(|error| Refusal::of(&error, scope.root.display()))?;
        if let Some(base) = &scope.base {
            // Before anything is sent: afterwards there is no status left to refuse with.
            Cursor::at(&base.pristine).map_err(|error| Refusal::of(&error, base.pristine.display()))?;
        }
        Ok(Self { scope, here, base: None, frames: Vec::new(), path: Vec::new(), same: Same::new(), into: None })
    }

    /// The path of what was found last.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The directory that it is in.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.here.directory()
    }

    /// Its name there.
    pub fn name(&self) -> &OsStr {
        match self.frames.last() {
            None => OsStr::new("."),
            Some(frame) => {
                OsStr::from_bytes(self.path[frame.length..].strip_prefix(b"/").unwrap_or(&self.path[frame.length..]))
            }
        }
    }

    /// The next thing; `None` after the last.
    pub fn next(&mut self) -> Result<Option<Found>, Refusal> {
        if self.frames.is_empty() && self.into.is_none() {
            let root = stat(self.here.directory(), OsStr::new(".")).map_err(|error| refused(error, b""))?;
            if let Some(found) = self.look(root, false)? {
                return Ok(Some(found));
            }
        }
        loop {
            if let Some((stat, step)) = self.into.take() {
                self.enter(&stat, step)?;
            }
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            self.path.truncate(frame.length);
            let Some(next) = frame.waiting.next() else {
                self.leave()?;
                if self.frames.is_empty() {
                    return Ok(None);
                }
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&next.name);
            if self.scope.omit.contains(&self.path) {
                continue;
            }
            if !next.here {
                return Ok(Some(Found::Deleted));
            }
            let found =
                stat(self.here.directory(), OsStr::from_bytes(&next.name)).map_err(|error| self.missing(error))?;
            if file_type(&found) == FileType::Socket {
                // It is left out, and what it took the place of is gone.
                if next.base {
                    return Ok(Some(Found::Deleted));
                }
                continue;
            }
            if let Some(found) = self.look(found, next.base)? {
                return Ok(Some(found));
            }
        }
    }

    /// What of it there is to tell.
    fn look(&mut self, stat: Statx, base: bool) -> Result<Option<Found>, Refusal> {
        let top = self.scope.is_base(&self.path);
        let same_mount = self.frames.last().is_none_or(|frame| frame.mount == stat.stx_mnt_id);
        if !same_mount && !top {
            let directory = file_type(&stat) == FileType::Directory;
            return Ok(Some(Found::Mount(if directory { Point::Directory } else { Point::File })));
        }
        if let (true, Some(base)) = (top, &self.scope.base) {
            let cursor = Cursor::at(&base.pristine).map_err(|error| Refusal::of(&error, base.pristine.display()))?;
            self.base = Some(cursor);
        }
        let (mut step, mut same) = (if top { Step::Top } else { Step::Alone }, false);
        if let Some(cursor) = self.base.as_ref().filter(|_| top || base) {
            let name = self.name().to_owned();
            let there = if top { OsStr::new(".") } else { &name };
            let spots = [(self.here.directory(), name.as_os_str()), (cursor.directory(), there)];
            let [here, there] = spots.map(|(directory, name)| Spot { directory, name });
            let base = super::cursor::stat(there.directory, there.name).map_err(|error| refused(error, &self.path))?;
            let both = file_type(&stat) == FileType::Directory && file_type(&base) == FileType::Directory;
            if both && !top {
                step = Step::Along;
            }
            same = self
                .same
                .are(here, &stat, there, &base)
                .map_err(|error| Refusal::of(&error, super::shown(&self.path)))?;
        }
        if file_type(&stat) == FileType::Directory {
            self.into = Some((stat, step));
        }
        Ok((!same).then_some(Found::Here(stat)))
    }

    fn enter(&mut self, found: &Statx, step: Step) -> Result<(), Refusal> {
        let name = self.name().to_owned();
        if !self.frames.is_empty() {
            self.here.down(&name, Mounts::Enter).map_err(|error| self.missing(error))?;
        }
        let base = match (step, &mut self.base) {
            (Step::Along, Some(base)) => {
                base.down(&name, Mounts::Enter).map_err(|error| refused(error, &self.path))?;
                Some(base)
            }
            (Step::Top, Some(base)) => Some(base),
            _ => None,
        };
        let stat = stat(self.here.directory(), OsStr::new(".")).map_err(|error| refused(error, &self.path))?;
        if stat.stx_ino != found.stx_ino || stat.stx_mnt_id != found.stx_mnt_id {
            return Err(changed(&self.path));
        }
        let here = names(self.here.directory()).map_err(|error| refused(error, &self.path))?;
        let base = base.map(|base| names(base.directory())).transpose().map_err(|error| refused(error, &self.path))?;
        let waiting = merged(here, base.unwrap_or_default()).into_iter();
        let (mount, changed) = (stat.stx_mnt_id, change_time(&stat));
        self.frames.push(Frame { waiting, length: self.path.len(), mount, changed, step });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Refusal> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let now = stat(self.here.directory(), OsStr::new(".")).map_err(|error| refused(error, &self.path))?;
        if change_time(&now) != frame.changed {
            return Err(changed(&self.path));
        }
        if !self.frames.is_empty() {
            self.here.up().map_err(|error| self.missing(error))?;
        }
        match (frame.step, &mut self.base) {
            (Step::Along, Some(base)) => base.up().map_err(|error| refused(error, &self.path))?,
            (Step::Top, _) => self.base = None,
            _ => {}
        }
        Ok(())
    }

    fn missing(&self, error: Errno) -> Refusal {
        match error {
            Errno::NOENT | Errno::STALE | Errno::NOTDIR | Errno::LOOP => changed(&self.path),
            _ => refused(error, &self.path),
        }
    }
}

/// Two sorted lists as one.
fn merged(here: Vec<Vec<u8>>, base: Vec<Vec<u8>>) -> Vec<Name> {
    let mut base = base.into_iter().peekable();
    let mut all = Vec::with_capacity(here.len());
    for name in here {
        while let Some(deleted) = base.next_if(|other| *other < name) {
            all.push(Name { name: deleted, here: false, base: true });
        }
        let both = base.next_if(|other| *other == name).is_some();
        all.push(Name { name, here: true, base: both });
    }
    all.extend(base.map(|name| Name { name, here: false, base: true }));
    all
}
