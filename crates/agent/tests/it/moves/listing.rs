//! Everything about a tree, by a walk that has nothing of the agent's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom};

/// A description of each path below `root`, and of the root.
pub fn listing(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags, Mode::empty()).expect("root");
    let mut lister = Lister::default();
    lister.add(&directory, b".", b"");
    let Lister { mut found, links } = lister;
    // The names of a file with several say each other.
    for names in links.values().filter(|names| names.len() > 1) {
        for name in names {
            let text = found.get_mut(name).expect("listed");
            text.push_str(&format!(" is {names:?}"));
        }
    }
    found
}

/// Whether two trees are the same in everything; says where not.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (listing(one), listing(other));
    let paths: BTreeSet<&Vec<u8>> = one.keys().chain(other.keys()).collect();
    let differ = paths.into_iter().filter(|path| one.get(*path) != other.get(*path));
    let differences: Vec<String> = differ
        .map(|path| format!("{}: {:?} / {:?}", String::from_utf8_lossy(path), one.get(path), other.get(path)))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[derive(Default)]
struct Lister {
    found: BTreeMap<Vec<u8>, String>,
    links: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Lister {
    fn add(&mut self, directory: &OwnedFd, name: &[u8], path: &[u8]) {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).expect("stat");
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut text = format!(
            "{kind:?} {:o} {}:{} {}.{:09} {:?}",
            stat.st_mode,
            stat.st_uid,
            stat.st_gid,
            stat.st_mtime,
            stat.st_mtime_nsec,
            attributes(directory, name)
        );
        match kind {
            FileType::Directory => {}
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new()).expect("link");
                text.push_str(&format!(" {target:?}"));
            }
            FileType::RegularFile => text.push_str(&content(directory, name, stat.st_size as u64)),
            _ => text.push_str(&format!(" {:x}", stat.st_rdev)),
        }
        if kind != FileType::Directory {
            self.links.entry((stat.st_dev, stat.st_ino)).or_default().push(path.to_vec());
        }
        self.found.insert(path.to_vec(), text);
        if kind == FileType::Directory {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inside = rustix::fs::openat(directory, name, flags, Mode::empty()).expect("directory");
            let mut names: Vec<Vec<u8>> = Dir::read_from(&inside)
                .expect("directory")
                .map(|entry| entry.expect("entry").file_name().to_bytes().to_vec())
                .filter(|name| name != b"." && name != b"..")
                .collect();
            names.sort();
            for name in names {
                let below = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
                self.add(&inside, &name, &below);
            }
        }
    }
}

fn attributes(directory: &OwnedFd, name: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
    let mut names = vec![0u8; 64 << 10];
    let count = rustix::fs::llistxattr(path.as_slice(), &mut names[..]).expect("names");
    let names = names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0u8; 64 << 10];
            let length = rustix::fs::lgetxattr(path.as_slice(), name, &mut value[..]).expect("value");
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

/// Runs of data, where they are, and a hash of all.
fn content(directory: &OwnedFd, name: &[u8], size: u64) -> String {
    let file = rustix::fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("file");
    let file = File::from(file);
    let (mut hasher, mut runs, mut at) = (DefaultHasher::new(), Vec::new(), 0);
    let mut piece = vec![0u8; 1 << 20];
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start)).expect("hole");
        at = start;
        while at < end {
            let count = piece.len().min((end - at) as usize);
            file.read_exact_at(&mut piece[..count], at).expect("content");
            piece[..count].hash(&mut hasher);
            at += count as u64;
        }
        runs.push((start, end));
    }
    format!(" {size} {runs:?} {:x}", hasher.finish())
}
