//! Deletions in a layer (OCI image spec 1.1, "Whiteouts"): `.wh.NAME` hides a name of the layers below,
//! `.wh..wh..opq` all of a directory. What the same layer wrote stays, in whatever order they come.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::archive::{Archive, Member};
use super::tree::{Parent, Tree, is_dir};
use crate::error::{Error, ErrorKind};

const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names that begin so are notes of the aufs filesystem to itself.
const AUFS: &[u8] = b".wh..wh.";
const PREFIX: &[u8] = b".wh.";

impl Tree<'_> {
    /// Writes one member of a layer, or deletes what it says.
    pub(super) fn add_of_layer<R: Read>(&mut self, member: &Member, archive: &mut Archive<R>) -> Result<(), Error> {
        let path = self.clean(&member.path)?;
        let Some(hidden) = path.file_name().and_then(|name| name.as_bytes().strip_prefix(PREFIX)) else {
            return self.add(member, archive);
        };
        let name = path.file_name().unwrap_or_default().as_bytes();
        let dir = path.parent().unwrap_or(Path::new(""));
        let parent = match self.open_dir(dir) {
            Err(Errno::NOENT) => return Ok(()),
            other => Parent::of(other, dir)?,
        };
        if name == OPAQUE {
            return self.empty(parent, dir);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        match hidden {
            b"" | b"." | b".." => Err(Error::new(ErrorKind::Escape(path.display().to_string()))),
            hidden => self.hide(&parent, OsStr::from_bytes(hidden), &path),
        }
    }

    fn hide(&mut self, parent: &Parent, name: &OsStr, path: &Path) -> Result<(), Error> {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Ok(_) if self.wrote(parent, name) => Ok(()),
            Ok(_) => self.remove(parent.as_fd(), name, path),
            Err(error) => Err(Error::write(path, error)),
        }
    }

    /// Removes what earlier layers left below a directory. Directories that this layer wrote stay and are
    /// emptied the same way, on a list of their own: recursion would be as deep as the image says.
    fn empty(&mut self, top: Parent, path: &Path) -> Result<(), Error> {
        let wrong = |error: Errno| Error::write(path, error);
        let mut pending = vec![top];
        while let Some(dir) = pending.pop() {
            for entry in Dir::read_from(dir.as_fd()).map_err(wrong)? {
                let entry = entry.map_err(wrong)?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(wrong)?;
                if !self.wrote(&dir, name) {
                    self.remove(dir.as_fd(), name, path)?;
                } else if is_dir(&stat) {
                    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    pending.push(Parent::of(openat(&dir, name, flags, Mode::empty()), path)?);
                }
            }
        }
        Ok(())
    }
}
