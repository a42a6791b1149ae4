//! The kernel files that the numbers come from.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Where the numbers come from.
#[derive(Debug)]
pub struct Sources {
    /// The host's /proc, a directory.
    pub proc: OwnedFd,
    /// The sandbox's cgroup.
    pub cgroup: Cgroup,
}

/// The directories in which the sandbox's limits are set, of either version of cgroups.
#[derive(Debug)]
pub enum Cgroup {
    /// One directory for each hierarchy.
    V1 {
        /// Limit, use and statistics of memory; its `cgroup.procs` is counted.
        memory: OwnedFd,
        /// Quota and period.
        cpu: OwnedFd,
        /// Processor time used.
        cpuacct: OwnedFd,
        /// Bytes and operations of disks.
        blkio: Option<OwnedFd>,
    },
    /// The one directory.
    V2(OwnedFd),
}

/// What is read from a cgroup, whatever the file is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    MemoryStat,
    MemoryUsage,
    MemoryLimit,
    CpuQuota,
    /// Version 1 only: version 2 has quota and period in one file.
    CpuPeriod,
    CpuUsage,
    /// Version 2 only.
    Pids,
    Procs,
    IoBytes,
    /// Version 1 only: version 2 has bytes and operations in one file.
    IoOperations,
    PressureCpu,
    PressureIo,
    PressureMemory,
}

const ENTRIES: usize = Entry::PressureMemory as usize + 1;

impl Cgroup {
    fn locate(&self, entry: Entry) -> Option<(BorrowedFd<'_>, &'static str)> {
        match self {
            Self::V1 { memory, cpu, cpuacct, blkio } => {
                let (directory, name) = match entry {
                    Entry::MemoryStat => (memory, "memory.stat"),
                    Entry::MemoryUsage => (memory, "memory.usage_in_bytes"),
                    Entry::MemoryLimit => (memory, "memory.limit_in_bytes"),
                    Entry::CpuQuota => (cpu, "cpu.cfs_quota_us"),
                    Entry::CpuPeriod => (cpu, "cpu.cfs_period_us"),
                    Entry::CpuUsage => (cpuacct, "cpuacct.stat"),
                    Entry::Procs => (memory, "cgroup.procs"),
                    Entry::IoBytes => (blkio.as_ref()?, "blkio.throttle.io_service_bytes_recursive"),
                    Entry::IoOperations => (blkio.as_ref()?, "blkio.throttle.io_serviced_recursive"),
                    Entry::Pids | Entry::PressureCpu | Entry::PressureIo | Entry::PressureMemory => return None,
                };
                Some((directory.as_fd(), name))
            }
            Self::V2(directory) => {
                let name = match entry {
                    Entry::MemoryStat => "memory.stat",
                    Entry::MemoryUsage => "memory.current",
                    Entry::MemoryLimit => "memory.max",
                    Entry::CpuQuota => "cpu.max",
                    Entry::CpuUsage => "cpu.stat",
                    Entry::Pids => "pids.current",
                    Entry::Procs => "cgroup.procs",
                    Entry::IoBytes => "io.stat",
                    Entry::PressureCpu => "cpu.pressure",
                    Entry::PressureIo => "io.pressure",
                    Entry::PressureMemory => "memory.pressure",
                    Entry::CpuPeriod | Entry::IoOperations => return None,
                };
                Some((directory.as_fd(), name))
            }
        }
    }
}

/// Reads them: each cgroup file is opened when first asked for and then kept, since the kernel writes it anew when it
/// is read from its start. Opening again takes some 5.5 us more for each file, where reading takes 1.3 to 10.
#[derive(Debug)]
pub(crate) struct Reader {
    sources: Sources,
    kept: [Option<OwnedFd>; ENTRIES],
    buffer: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(sources: Sources) -> Self {
        Self { sources, kept: [const { None }; ENTRIES], buffer: vec![0; 4096] }
    }

    pub(crate) fn is_v2(&self) -> bool {
        matches!(self.sources.cgroup, Cgroup::V2(_))
    }

    /// What a file of the cgroup says now; `None` if this kernel or hierarchy has no such file.
    pub(crate) fn cgroup(&mut self, entry: Entry) -> io::Result<Option<&str>> {
        let Some(file) = kept(&mut self.kept, &self.sources.cgroup, entry)? else { return Ok(None) };
        // These files are written by the kernel in one go: what fits is all of it.
        loop {
            let length = rustix::io::pread(file, &mut self.buffer, 0)?;
            if length < self.buffer.len() {
                return text(&self.buffer[..length]).map(Some);
            }
            self.buffer.resize(2 * length, 0);
        }
    }

    /// How many lines a long file of the cgroup has.
    pub(crate) fn cgroup_lines(&mut self, entry: Entry) -> io::Result<u64> {
        let Some(file) = kept(&mut self.kept, &self.sources.cgroup, entry)? else { return Ok(0) };
        let (mut at, mut lines) = (0, 0);
        loop {
            let length = rustix::io::pread(file, &mut self.buffer, at)?;
            if length == 0 {
                return Ok(lines);
            }
            at += length as u64;
            lines += self.buffer[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        }
    }

    /// The start of a file of the host's /proc: all, or as much as `enough` asks for.
    pub(crate) fn host(&self, name: &str, mut enough: impl FnMut(&str) -> bool) -> io::Result<String> {
        let file = open(self.sources.proc.as_fd(), name)?;
        let (mut bytes, mut length) = (vec![0; 8192], 0);
        loop {
            let more = rustix::io::read(&file, &mut bytes[length..])?;
            length += more;
            let so_far = text(&bytes[..length])?;
            if more == 0 || enough(so_far) {
                return Ok(so_far.to_owned());
            }
            if length == bytes.len() {
                bytes.resize(2 * length, 0);
            }
        }
    }
}

fn kept<'a>(kept: &'a mut [Option<OwnedFd>], cgroup: &Cgroup, entry: Entry) -> io::Result<Option<&'a OwnedFd>> {
    let slot = &mut kept[entry as usize];
    if slot.is_none() {
        let Some((directory, name)) = cgroup.locate(entry) else { return Ok(None) };
        match open(directory, name) {
            Ok(file) => *slot = Some(file),
            // The controller is off here, or the kernel is older than the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(slot.as_ref())
}

fn open(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Err(Errno::INTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A file that is one number; `None` if it is not, as "max" and "-1" are for no limit.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of the first line that begins with `key` as a word of its own.
pub(crate) fn number_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(key)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn reader(directory: &tempfile::TempDir) -> Reader {
        let open = || OwnedFd::from(fs::File::open(directory.path()).unwrap());
        Reader::new(Sources { proc: open(), cgroup: Cgroup::V2(open()) })
    }

    #[test]
    fn a_file_larger_than_the_buffer_is_read_whole_and_anew_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let mut reader = reader(&directory);
        assert_eq!(reader.cgroup(Entry::MemoryStat).unwrap(), None);
        let path = directory.path().join("memory.stat");
        for length in [10, 4096, 20_000, 3] {
            fs::write(&path, "x".repeat(length)).unwrap();
            assert_eq!(reader.cgroup(Entry::MemoryStat).unwrap().map(str::len), Some(length));
        }
    }

    #[test]
    fn lines_are_counted_over_many_reads() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cgroup.procs"), "1234567\n".repeat(5000)).unwrap();
        assert_eq!(reader(&directory).cgroup_lines(Entry::Procs).unwrap(), 5000);
        assert_eq!(reader(&directory).cgroup_lines(Entry::Pids).unwrap(), 0);
    }

    #[test]
    fn the_hosts_files_are_read_only_as_far_as_needed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("cpuinfo"), "y".repeat(100_000)).unwrap();
        let reader = reader(&directory);
        assert_eq!(reader.host("cpuinfo", |_| false).unwrap().len(), 100_000);
        assert_eq!(reader.host("cpuinfo", |text| text.len() > 10).unwrap().len(), 8192);
    }

    #[test]
    fn a_number_is_found_by_its_whole_key() {
        let text = "user_usec_x 1\nuser_usec 2\nempty\n";
        assert_eq!(number_of(text, "user_usec"), Some(2));
        assert_eq!(number_of(text, "empty"), None);
        assert_eq!(number_of(text, "usec"), None);
    }
}
