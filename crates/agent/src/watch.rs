//! Changes below a directory, by inotify(7), in envd's words.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use garth_protocol::filesystem::{EventType, FilesystemEvent};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::entry;
use crate::readiness::watch;
use crate::refusal::{Kind, Refusal};
use crate::users::Users;

/// NFS, SMB, SMB2 and FUSE (linux/magic.h): changes made elsewhere are not seen there.
const NETWORK_FILESYSTEMS: [i64; 4] = [0x6969, 0x517b, 0xfe53_4d42, 0x6573_5546];
/// The largest batch of events read at once.
const BATCH: usize = 16 << 10;

/// What to watch.
#[derive(Debug, Clone)]
pub struct Order {
    /// The directory.
    pub path: PathBuf,
    /// Directories below it too, also those made later.
    pub recursive: bool,
    /// Adds the entry to events of what is there.
    pub include_entry: bool,
    /// Network filesystems are taken, although changes by others go unseen.
    pub allow_network_mounts: bool,
}

/// A watch under way.
#[derive(Debug)]
pub struct Watch {
    order: Order,
    users: Arc<Users>,
    inotify: AsyncFd<OwnedFd>,
    /// Each watched directory, relative to the first.
    directories: HashMap<i32, PathBuf>,
    waiting: VecDeque<FilesystemEvent>,
}

impl Watch {
    /// Begins to watch. Call it within the event loop.
    #[expect(clippy::useless_conversion, reason = "the C libraries differ in the type of f_type")]
    pub fn begin(order: Order, users: Arc<Users>) -> Result<Self, Refusal> {
        let shown = order.path.display();
        let refused = |error: io::Error| Refusal::of(&error, &shown);
        if !fs::metadata(&order.path).map_err(refused)?.is_dir() {
            return Err(Refusal::invalid(format!("path '{shown}' is not a directory")));
        }
        let magic = rustix::fs::statfs(&order.path).map_err(|error| refused(error.into()))?.f_type;
        if !order.allow_network_mounts && NETWORK_FILESYSTEMS.contains(&i64::from(magic)) {
            return Err(Refusal::invalid(format!("path '{shown}' is on a network filesystem")));
        }
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let inotify = inotify.map_err(|error| refused(error.into()))?;
        let inotify = watch(inotify, Interest::READABLE).map_err(refused)?;
        let mut watch =
            Self { order: order.clone(), users, inotify, directories: HashMap::new(), waiting: VecDeque::new() };
        watch.add(PathBuf::new())?;
        Ok(watch)
    }

    /// The next change.
    pub async fn next(&mut self) -> io::Result<FilesystemEvent> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            let changes = self.inotify.async_io(Interest::READABLE, read).await?;
            for change in changes {
                self.take(change);
            }
        }
    }

    /// Watches a directory and, if asked, those below. One that is gone again is no error, but for the first.
    fn add(&mut self, relative: PathBuf) -> Result<(), Refusal> {
        let flags = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        let mut left = vec![relative];
        while let Some(relative) = left.pop() {
            let path = self.order.path.join(&relative);
            match inotify::add_watch(self.inotify.get_ref(), &path, flags) {
                Ok(number) => _ = self.directories.insert(number, relative.clone()),
                Err(rustix::io::Errno::NOSPC) => {
                    return Err(Refusal::new(Kind::Failed, "no watch is left (fs.inotify.max_user_watches)"));
                }
                Err(error) if relative.as_os_str().is_empty() => {
                    return Err(Refusal::of(&error.into(), path.display()));
                }
                Err(_) => continue,
            }
            if self.order.recursive {
                left.extend(directories(&path).map(|name| relative.join(name)));
            }
        }
        Ok(())
    }

    fn take(&mut self, change: Change) {
        let Some(directory) = self.directories.get(&change.watch) else { return };
        if change.events.contains(ReadFlags::IGNORED) {
            self.directories.remove(&change.watch);
            return;
        }
        let Some(name) = &change.name else { return };
        let relative = directory.join(name);
        for kind in kinds(change.events) {
            self.tell(&relative, kind);
            if kind == EventType::EVENT_TYPE_CREATE && change.events.contains(ReadFlags::ISDIR) && self.order.recursive
            {
                self.follow(relative.clone());
            }
        }
    }

    /// Watches a new directory; what was put in before that is told now.
    fn follow(&mut self, relative: PathBuf) {
        let mut left = vec![relative.clone()];
        if self.add(relative).is_err() {
            return;
        }
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(self.order.path.join(&directory)).into_iter().flatten().flatten() {
                let inside = directory.join(entry.file_name());
                self.tell(&inside, EventType::EVENT_TYPE_CREATE);
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    left.push(inside);
                }
            }
        }
    }

    fn tell(&mut self, relative: &Path, kind: EventType) {
        let still_there = !matches!(kind, EventType::EVENT_TYPE_REMOVE | EventType::EVENT_TYPE_RENAME);
        let entry = (self.order.include_entry && still_there)
            .then(|| entry::describe(&self.order.path.join(relative), &self.users.names()).ok())
            .flatten();
        let name = relative.to_string_lossy().into_owned();
        self.waiting.push_back(FilesystemEvent {
            name,
            r#type: kind.into(),
            entry: entry.into(),
            ..Default::default()
        });
    }
}

fn directories(path: &Path) -> impl Iterator<Item = std::ffi::OsString> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.file_name())
}

/// One event of the kernel.
struct Change {
    watch: i32,
    events: ReadFlags,
    name: Option<std::ffi::OsString>,
}

fn read(fd: &OwnedFd) -> io::Result<Vec<Change>> {
    let mut buffer = vec![MaybeUninit::uninit(); BATCH];
    let mut reader = Reader::new(fd, &mut buffer);
    let mut changes = Vec::new();
    loop {
        let event = reader.next()?;
        let name = event.file_name().map(|name| std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes()));
        changes.push(Change { watch: event.wd(), events: event.events(), name: name.map(std::ffi::OsStr::to_owned) });
        if reader.is_buffer_empty() {
            return Ok(changes);
        }
    }
}

fn kinds(events: ReadFlags) -> impl Iterator<Item = EventType> {
    let table = [
        (ReadFlags::CREATE | ReadFlags::MOVED_TO, EventType::EVENT_TYPE_CREATE),
        (ReadFlags::MODIFY, EventType::EVENT_TYPE_WRITE),
        (ReadFlags::DELETE, EventType::EVENT_TYPE_REMOVE),
        (ReadFlags::MOVED_FROM, EventType::EVENT_TYPE_RENAME),
        (ReadFlags::ATTRIB, EventType::EVENT_TYPE_CHMOD),
    ];
    table.into_iter().filter(move |(flags, _)| events.intersects(*flags)).map(|(_, kind)| kind)
}
