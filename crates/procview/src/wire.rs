//! The FUSE protocol's messages (linux/fuse.h) as far as this file system needs them: bytes to [`Request`], answers to
//! bytes.

use rustix::io::Errno;

/// The kernel's smallest buffer for reading requests; with [`MAX_WRITE`] every request that is served fits, and what
/// does not (a long attribute to set) the kernel refuses by itself.
pub(crate) const BUFFER: usize = 8192;

pub(crate) const MAX_WRITE: u32 = 4096;
const MAJOR: u32 = 7;
/// Linux 5.4: nothing newer is used.
const MINOR: u32 = 31;
pub(crate) const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;

/// Always read through the server, whatever the size says, which is 0.
pub(crate) const FOPEN_DIRECT_IO: u32 = 1;
/// No request when a descriptor is closed (Linux 5.16): there is nothing to flush.
pub(crate) const FOPEN_NOFLUSH: u32 = 1 << 5;

/// FUSE_NOTIFY_RESEND (Linux 6.9), as a message from here to the kernel.
pub(crate) const RESEND: [u8; OUT_HEADER] = [16, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// One request: who is asked is `node`, and the answer carries `unique`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) unique: u64,
    pub(crate) node: u64,
    pub(crate) operation: Operation<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    Init {
        major: u32,
        minor: u32,
    },
    Lookup {
        name: &'a [u8],
    },
    GetAttr,
    SetAttr,
    Open {
        flags: u32,
    },
    OpenDir,
    Read {
        handle: u64,
        offset: u64,
        size: u32,
    },
    ReadDir {
        offset: u64,
        size: u32,
    },
    Release {
        handle: u64,
    },
    ReleaseDir,
    Access {
        mask: u32,
    },
    StatFs,
    Flush,
    Destroy,
    /// Not even a terminal (programs ask that of every file they open).
    Ioctl,
    /// To be ignored: nothing is ever answered.
    Silent,
    /// Known, but too short.
    Malformed,
    Unknown,
}

impl<'a> Request<'a> {
    /// `None` if there is not even a header, so that no answer could be addressed.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, body) = bytes.split_at_checked(IN_HEADER)?;
        let length = usize::try_from(u32_at(header, 0)?).ok()?;
        let body = body.get(..length.checked_sub(IN_HEADER)?)?;
        let operation = Operation::parse(u32_at(header, 4)?, body).unwrap_or(Operation::Malformed);
        Some(Self { unique: u64_at(header, 8)?, node: u64_at(header, 16)?, operation })
    }
}

impl<'a> Operation<'a> {
    fn parse(opcode: u32, body: &'a [u8]) -> Option<Self> {
        Some(match opcode {
            1 => Self::Lookup { name: body.split(|byte| *byte == 0).next().filter(|name| name.len() < body.len())? },
            3 => Self::GetAttr,
            4 => Self::SetAttr,
            14 => Self::Open { flags: u32_at(body, 0)? },
            15 => Self::Read { handle: u64_at(body, 0)?, offset: u64_at(body, 8)?, size: u32_at(body, 16)? },
            17 => Self::StatFs,
            18 => Self::Release { handle: u64_at(body, 0)? },
            25 => Self::Flush,
            26 => Self::Init { major: u32_at(body, 0)?, minor: u32_at(body, 4)? },
            27 => Self::OpenDir,
            28 => Self::ReadDir { offset: u64_at(body, 8)?, size: u32_at(body, 16)? },
            29 => Self::ReleaseDir,
            34 => Self::Access { mask: u32_at(body, 0)? },
            38 => Self::Destroy,
            39 => Self::Ioctl,
            // FORGET, INTERRUPT, NOTIFY_REPLY, BATCH_FORGET: nodes are never forgotten, nothing takes long.
            2 | 36 | 41 | 42 => Self::Silent,
            _ => Self::Unknown,
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

/// An answer under construction, in a buffer that is used again: a header, then what the methods append.
#[derive(Debug)]
pub(crate) struct Answer<'a>(&'a mut Vec<u8>);

/// What the kernel is told about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) time: u64,
}

/// Names and attributes never change: ask again in a year.
const FRESH: u64 = 365 * 24 * 60 * 60;

impl<'a> Answer<'a> {
    pub(crate) fn to(unique: u64, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&unique.to_ne_bytes());
        Self(out)
    }

    /// Finishes with what was appended.
    pub(crate) fn done(self) {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Finishes as a failure.
    pub(crate) fn error(self, error: Errno) {
        self.0.truncate(OUT_HEADER);
        self.0[4..8].copy_from_slice(&(-error.raw_os_error()).to_ne_bytes());
        self.done();
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32s(self, values: &[u32]) -> Self {
        values.iter().for_each(|value| self.0.extend_from_slice(&value.to_ne_bytes()));
        self
    }

    fn u64s(self, values: &[u64]) -> Self {
        values.iter().for_each(|value| self.0.extend_from_slice(&value.to_ne_bytes()));
        self
    }

    /// Names are looked up side by side; else no flags: no cache to write back, no locks, no large requests.
    pub(crate) fn init(self) -> Self {
        const PARALLEL_DIROPS: u32 = 1 << 18;
        let [max_readahead, flags, limits, max_write, granularity] = [0, PARALLEL_DIROPS, 0, MAX_WRITE, 1];
        self.u32s(&[MAJOR, MINOR, max_readahead, flags, limits, max_write, granularity]).u32s(&[0; 9])
    }

    /// What is found under a name.
    pub(crate) fn entry(self, attributes: Attributes) -> Self {
        let generation = 0;
        self.u64s(&[attributes.inode, generation, FRESH, FRESH]).u32s(&[0, 0]).attr(attributes)
    }

    pub(crate) fn attributes(self, attributes: Attributes) -> Self {
        self.u64s(&[FRESH]).u32s(&[0, 0]).attr(attributes)
    }

    fn attr(self, Attributes { inode, mode, links, uid, gid, time }: Attributes) -> Self {
        let [size, blocks] = [0, 0];
        let (nanoseconds, device, block_size, flags) = (0, 0, 4096, 0);
        let answer = self.u64s(&[inode, size, blocks, time, time, time]).u32s(&[nanoseconds; 3]);
        answer.u32s(&[mode, links, uid, gid, device, block_size, flags])
    }

    pub(crate) fn opened(self, handle: u64, flags: u32) -> Self {
        self.u64s(&[handle]).u32s(&[flags, 0])
    }

    pub(crate) fn statfs(self, files: u64) -> Self {
        let (blocks, block_size, name_length) = ([0; 3], 4096, 255);
        self.u64s(&blocks).u64s(&[files, 0]).u32s(&[block_size, name_length, block_size, 0]).u32s(&[0; 6])
    }

    /// One name of a directory; the listing goes on at `next`.
    pub(crate) fn name(self, next: u64, inode: u64, mode: u32, name: &str) -> Self {
        let end = self.0.len() + name_size(name);
        let length = u32::try_from(name.len()).unwrap_or(0);
        let answer = self.u64s(&[inode, next]).u32s(&[length, mode >> 12]).bytes(name.as_bytes());
        answer.0.resize(end, 0);
        answer
    }
}

/// How many bytes of an answer a name takes.
pub(crate) fn name_size(name: &str) -> usize {
    24 + name.len().next_multiple_of(8)
}

#[cfg(test)]
pub(crate) mod tests;
