//! Deleting a tree that a hostile sandbox has filled.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// Removes a directory and everything below it, on one filesystem, following no link.
///
/// `std::fs::remove_dir_all` keeps one descriptor and one stack frame per level, so a project that
/// nests 100,000 directories would make itself undeletable. Here a directory that is not empty moves
/// up to the top and is emptied there: constant memory and two descriptors, whatever the depth.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    remove_tree_at(CWD, path)
}

/// As [`remove_tree`], of a path below an open directory. Fine when there is none.
pub fn remove_tree_at(parent: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let top = match open_dir(parent, path) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let device = fstat(&top)?.st_dev;
    let mut moved = 0u64;
    while let Some(name) = empty_or_first_dir(top.as_fd())? {
        let dir = open_dir(top.as_fd(), &name)?;
        if fstat(&dir)?.st_dev != device {
            return Err(io::Error::from(Errno::XDEV));
        }
        flatten(top.as_fd(), dir.as_fd(), &mut moved)?;
        unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
    }
    drop(top);
    Ok(unlinkat(parent, path, AtFlags::REMOVEDIR)?)
}

fn open_dir<P: rustix::path::Arg>(parent: BorrowedFd<'_>, name: P) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Unlinks every file and empty directory in the top; the name of a directory that is not empty.
fn empty_or_first_dir(top: BorrowedFd<'_>) -> io::Result<Option<CString>> {
    let mut full = None;
    for (name, is_dir) in list(top)? {
        if is_dir {
            match unlinkat(top, &name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => full = Some(name),
                other => other?,
            }
        } else {
            unlinkat(top, &name, AtFlags::empty())?;
        }
    }
    Ok(full)
}

/// Empties a directory: files are unlinked, directories that are not empty move to the top.
fn flatten(top: BorrowedFd<'_>, dir: BorrowedFd<'_>, moved: &mut u64) -> io::Result<()> {
    for (name, is_dir) in list(dir)? {
        if !is_dir {
            unlinkat(dir, &name, AtFlags::empty())?;
            continue;
        }
        match unlinkat(dir, &name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => move_up(top, dir, &name, moved)?,
            other => other?,
        }
    }
    Ok(())
}

fn move_up(top: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CString, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let target = format!(".garth-gone-{moved}");
        match renameat(dir, name, top, target.as_str()) {
            // The project chose that very name: take the next.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            other => return Ok(other?),
        }
    }
}

fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<(CString, bool)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Unknown => is_dir(dir, name)?,
            kind => kind == FileType::Directory,
        };
        found.push((name.to_owned(), is_dir));
    }
    Ok(found)
}

fn is_dir(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<bool> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_tree_deeper_than_any_descriptor_limit_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open_dir(CWD, &tree).unwrap();
        for level in 0..2000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&at, "empty", Mode::RWXU).unwrap();
            if level % 100 == 0 {
                openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            }
            at = open_dir(at.as_fd(), "d").unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn links_out_of_the_tree_are_removed_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("host/kept")).unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        std::os::unix::fs::symlink("../../../host", tree.join("a/b/out")).unwrap();
        std::os::unix::fs::symlink("../host", tree.join("out")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(dir.path().join("host/kept").exists());
    }

    #[test]
    fn names_taken_by_the_project_do_not_stop_removal() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        for n in 0..5 {
            fs::create_dir_all(tree.join(format!(".garth-gone-{n}/x/y/z"))).unwrap();
        }
        fs::create_dir_all(tree.join("a/b/c/d")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn removing_what_is_not_there_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        remove_tree(&dir.path().join("nothing")).unwrap();
    }
}
