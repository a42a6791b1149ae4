//! The numbers of one sandbox, as files and as `sysinfo(2)`.

use std::io::{self, Write};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::activity::Activity;
use crate::cpuinfo;
use crate::disk::Disk;
use crate::memory::{Host, Memory, Stat};
use crate::processors::{self, Quota, Usage};
use crate::reader::{self, Entry, Reader, Sources};
use crate::session::Source;
use crate::tree::Node;

/// When a sandbox started, and its id as a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Started {
    /// The host's `CLOCK_BOOTTIME`.
    pub boottime: Duration,
    /// Seconds since 1970.
    pub wall: u64,
    /// Shown as the machine's UUID: the same for the sandbox's life, and nobody else's.
    pub id: [u8; 16],
}

/// What `sysinfo(2)` says, in the units of its structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sysinfo {
    /// Seconds since the start.
    pub uptime: u64,
    /// Load averages, times 65,536.
    pub loads: [u64; 3],
    /// The limit.
    pub totalram: u64,
    /// Not in use, not even as a cache.
    pub freeram: u64,
    /// In shared memory.
    pub sharedram: u64,
    /// Always 0.
    pub bufferram: u64,
    /// Always 0.
    pub totalswap: u64,
    /// Always 0.
    pub freeswap: u64,
    /// Processes, as far as they can be counted.
    pub procs: u16,
    /// Always 0.
    pub totalhigh: u64,
    /// Always 0.
    pub freehigh: u64,
    /// Always 1: memory is in bytes.
    pub mem_unit: u32,
}

impl Sysinfo {
    /// As `struct sysinfo` of a 64-bit Linux (linux/sysinfo.h).
    pub fn to_bytes(self) -> [u8; 112] {
        let mut bytes = [0; 112];
        let memory = [self.totalram, self.freeram, self.sharedram, self.bufferram, self.totalswap, self.freeswap];
        let words = [self.uptime].into_iter().chain(self.loads).chain(memory);
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes[80..82].copy_from_slice(&self.procs.to_ne_bytes());
        bytes[88..96].copy_from_slice(&self.totalhigh.to_ne_bytes());
        bytes[96..104].copy_from_slice(&self.freehigh.to_ne_bytes());
        bytes[104..108].copy_from_slice(&self.mem_unit.to_ne_bytes());
        bytes
    }
}

/// The sandbox's numbers.
#[derive(Debug)]
pub struct View {
    reader: Reader,
    started: Started,
    host: Host,
    host_processors: usize,
    /// The host's text, as much as was needed so far.
    cpuinfo: String,
    activity: Activity,
}

impl View {
    /// Reads what never changes about the host.
    pub fn new(sources: Sources, started: Started) -> io::Result<Self> {
        let reader = Reader::new(sources);
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal");
        let host = Host::parse(&reader.host("meminfo", |_| false)?).ok_or_else(unknown)?;
        // The processors come first, and the line of interrupts after them is long.
        let host_processors = processors::count(&reader.host("stat", |text| text.contains("\nintr"))?);
        let (cpuinfo, activity) = (String::new(), Activity::default());
        Ok(Self { reader, started, host, host_processors, cpuinfo, activity })
    }

    /// Says that the sandbox starts: the process that serves it is made before. After a restart of the server it says
    /// when it did start.
    pub fn begin(&mut self, started: Started) {
        self.started = started;
        self.activity = Activity::default();
    }

    /// The host's processors.
    pub fn host_cpus(&self) -> usize {
        self.host_processors
    }

    /// Processors to show: the quota rounded up, the host's at most, one at least. Read anew each time.
    pub fn cpus(&mut self) -> io::Result<usize> {
        let v2 = self.reader.is_v2();
        let text = self.reader.cgroup(Entry::CpuQuota)?.unwrap_or_default();
        let quota = match v2 {
            true => Quota::parse_v2(text),
            false => match reader::number(text) {
                Some(quota) => {
                    let period = self.reader.cgroup(Entry::CpuPeriod)?.and_then(reader::number);
                    Quota::new(Some(quota), period)
                }
                None => Quota::new(None, None),
            },
        };
        Ok(quota.processors(self.host_processors))
    }

    /// Appends what a file says now.
    pub fn render(&mut self, node: Node, out: &mut Vec<u8>) -> io::Result<()> {
        match node {
            Node::Meminfo => self.memory()?.render(out),
            Node::Cpuinfo => self.render_cpuinfo(out)?,
            Node::Stat => {
                self.advance()?;
                self.activity.render_stat(self.started.wall, out);
            }
            Node::Loadavg => {
                self.advance()?;
                let processes = self.processes()?;
                self.activity.render_loadavg(processes, out);
            }
            Node::Uptime => {
                self.advance()?;
                self.activity.render_uptime(out);
            }
            Node::Swaps => out.extend_from_slice(b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
            Node::Diskstats => self.disk()?.render(out),
            Node::PressureCpu => self.render_pressure(Entry::PressureCpu, out)?,
            Node::PressureIo => self.render_pressure(Entry::PressureIo, out)?,
            Node::PressureMemory => self.render_pressure(Entry::PressureMemory, out)?,
            Node::CpuOnline | Node::CpuPresent | Node::CpuPossible => cpuinfo::render_range(self.cpus()?, out),
            Node::ProductUuid => render_uuid(self.started.id, out),
            Node::ProductName => out.extend_from_slice(b"Garth sandbox\n"),
            Node::SysVendor => out.extend_from_slice(b"Garth\n"),
        }
        Ok(())
    }

    /// What `sysinfo(2)` should say now.
    pub fn sysinfo(&mut self) -> io::Result<Sysinfo> {
        self.advance()?;
        let processes = self.processes()?;
        let memory = self.memory()?;
        Ok(Sysinfo {
            uptime: self.uptime().as_secs(),
            loads: self.activity.loads().map(|load| (load * 65536.0) as u64),
            totalram: memory.total,
            freeram: memory.free,
            sharedram: memory.stat.shmem,
            procs: u16::try_from(processes).unwrap_or(u16::MAX),
            mem_unit: 1,
            ..Sysinfo::default()
        })
    }

    fn memory(&mut self) -> io::Result<Memory> {
        let v2 = self.reader.is_v2();
        let usage = self.reader.cgroup(Entry::MemoryUsage)?.and_then(reader::number).unwrap_or(0);
        let text = self.reader.cgroup(Entry::MemoryStat)?.unwrap_or_default();
        let mut stat = if v2 { Stat::parse_v2(text) } else { Stat::parse_v1(text) };
        if stat.limit.is_none() {
            stat.limit = self.reader.cgroup(Entry::MemoryLimit)?.and_then(reader::number);
        }
        Ok(Memory::new(self.host, usage, stat))
    }

    fn advance(&mut self) -> io::Result<()> {
        let processors = self.cpus()?;
        let v2 = self.reader.is_v2();
        let text = self.reader.cgroup(Entry::CpuUsage)?.unwrap_or_default();
        let used = if v2 { Usage::parse_v2(text) } else { Usage::parse_v1(text) };
        self.activity.advance(self.uptime(), used, processors);
        Ok(())
    }

    fn uptime(&self) -> Duration {
        let now = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
        now.saturating_sub(self.started.boottime)
    }

    /// The count of the pids controller, which knows the cgroups below; else the processes of this cgroup alone.
    fn processes(&mut self) -> io::Result<u64> {
        let counted = self.reader.cgroup(Entry::Pids)?.and_then(reader::number);
        counted.map_or_else(|| self.reader.cgroup_lines(Entry::Procs), Ok)
    }

    fn disk(&mut self) -> io::Result<Disk> {
        let v2 = self.reader.is_v2();
        let bytes = self.reader.cgroup(Entry::IoBytes)?.unwrap_or_default();
        if v2 {
            return Ok(Disk::parse_v2(bytes));
        }
        let bytes = bytes.to_owned();
        Ok(Disk::parse_v1(&bytes, self.reader.cgroup(Entry::IoOperations)?.unwrap_or_default()))
    }

    fn render_pressure(&mut self, entry: Entry, out: &mut Vec<u8>) -> io::Result<()> {
        const NONE: &str =
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        match self.reader.cgroup(entry) {
            Ok(text) => out.extend_from_slice(text.unwrap_or(NONE).as_bytes()),
            // The kernel was built with it and started without it (psi=0).
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
                out.extend_from_slice(NONE.as_bytes());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn render_cpuinfo(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let processors = self.cpus()?;
        if cpuinfo::count(&self.cpuinfo) < processors {
            let whole = |text: &str| text.matches("\n\n").count() >= processors;
            self.cpuinfo = self.reader.host("cpuinfo", whole)?;
        }
        cpuinfo::render(&self.cpuinfo, processors, out);
        Ok(())
    }
}

impl Source for View {
    fn render(&mut self, node: Node, out: &mut Vec<u8>) -> io::Result<()> {
        Self::render(self, node, out)
    }
}

fn render_uuid(id: [u8; 16], out: &mut Vec<u8>) {
    for (at, byte) in id.iter().enumerate() {
        let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
        let _ = write!(out, "{dash}{byte:02x}");
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
