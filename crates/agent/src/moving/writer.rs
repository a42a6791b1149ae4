//! Entries as a pax stream. GNU tar reads it but for what tar has no word for: holes, mounts, deletions and the end.

use std::io::{self, Write};

use tar::{EntryType, Header};

use super::digest::Summary;
use super::entry::{Entry, Kind, Point};
use crate::facts::Facts;
use crate::xattrs;

/// The type of entries that tar has no word for; POSIX leaves `A` to `Z` to implementations.
pub const OURS: u8 = b'Z';
/// What such an entry is: `mount`, `mounted-file`, `deleted`, `end` or `failed`. No file's name can become a record's key.
pub const WORD: &str = "GARTH.word";
/// The length of a file that comes in runs of data, each with its offset and length before it.
pub const SPARSE: &str = "GARTH.sparse";
/// The digest of all entries, in hexadecimal digits.
pub const DIGEST: &str = "GARTH.digest";
/// How many there were.
pub const ENTRIES: &str = "GARTH.entries";
/// How long all files are.
pub const BYTES: &str = "GARTH.bytes";
/// Why there is no end.
pub const MESSAGE: &str = "GARTH.message";
/// More than this about one file is refused.
pub const LARGEST_HEAD: usize = 16 << 20;
/// The unit of a tar stream.
pub const UNIT: usize = 512;

/// How a file's content comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All of it.
    Whole,
    /// In runs of data that take so many bytes together with where they are.
    Runs(u64),
}

/// Where a run of data is, in the stream.
pub const RUN_HEAD: u64 = 16;

/// Writes entries.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes written since the last header.
    body: u64,
}

impl<W: Write> Writer<W> {
    /// To `out`.
    pub fn new(out: W) -> Self {
        Self { out, body: 0 }
    }

    /// An entry; a file's content comes after it.
    pub fn entry(&mut self, entry: &Entry, form: Form) -> io::Result<()> {
        let mut records = vec![(b"path".to_vec(), entry.path.clone())];
        let mut header = Header::new_ustar();
        let mut size = 0;
        let mut device = None;
        let kind = match &entry.kind {
            Kind::File(length) => {
                size = *length;
                if let Form::Runs(taken) = form {
                    records.push((SPARSE.into(), length.to_string().into()));
                    size = taken;
                }
                EntryType::Regular
            }
            Kind::Directory => EntryType::Directory,
            Kind::Symlink(target) | Kind::Link(target) => {
                records.push((b"linkpath".to_vec(), target.clone()));
                if matches!(entry.kind, Kind::Link(_)) { EntryType::Link } else { EntryType::Symlink }
            }
            Kind::Fifo => EntryType::Fifo,
            Kind::Character(numbers) => {
                device = Some(*numbers);
                EntryType::Char
            }
            Kind::Block(numbers) => {
                device = Some(*numbers);
                EntryType::Block
            }
            Kind::Mount(Point::Directory) => return self.word("mount", &mut records),
            Kind::Mount(Point::File) => return self.word("mounted-file", &mut records),
            Kind::Deleted => return self.word("deleted", &mut records),
        };
        if let Some(device) = device {
            header.set_device_major(device.major)?;
            header.set_device_minor(device.minor)?;
        }
        header.set_entry_type(kind);
        header.set_size(size);
        let Facts { mode, uid, gid, modified } = entry.facts;
        header.set_mode(mode);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mtime(modified.tv_sec.try_into().unwrap_or(0));
        records.push((b"mtime".to_vec(), format!("{}.{:09}", modified.tv_sec, modified.tv_nsec).into()));
        records.extend(entry.xattrs.iter().map(|(name, value)| (key(name), value.clone())));
        self.head(&mut header, &records)
    }

    /// A piece of the last entry's content.
    pub fn data(&mut self, data: &[u8]) -> io::Result<()> {
        self.body += data.len() as u64;
        self.out.write_all(data)
    }

    /// Where in the file the next data are.
    pub fn run(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.data(&offset.to_be_bytes())?;
        self.data(&length.to_be_bytes())
    }

    /// The last entry: all before it is whole.
    pub fn end(&mut self, summary: &Summary) -> io::Result<()> {
        let records =
            [(DIGEST, summary.hex()), (ENTRIES, summary.entries.to_string()), (BYTES, summary.bytes.to_string())];
        self.word("end", &mut records.map(|(key, value)| (key.into(), value.into())).to_vec())?;
        self.out.write_all(&[0; 2 * UNIT])
    }

    /// The last entry: what came before is not all.
    pub fn failed(&mut self, message: &str) -> io::Result<()> {
        self.word("failed", &mut vec![(MESSAGE.into(), message.into())])
    }

    fn word(&mut self, word: &str, records: &mut Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<()> {
        records.push((WORD.into(), word.into()));
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(OURS));
        self.head(&mut header, records)
    }

    fn head(&mut self, header: &mut Header, records: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
        let mut data = Vec::new();
        for (key, value) in records {
            let length = record_length(key.len() + value.len());
            data.extend_from_slice(format!("{length} ").as_bytes());
            data.extend([key, &b"="[..], value, b"\n"].concat());
        }
        if data.len() > LARGEST_HEAD {
            return Err(io::Error::other("the name and the attributes of a file are too long"));
        }
        let mut before = Header::new_ustar();
        before.set_entry_type(EntryType::XHeader);
        before.set_size(data.len() as u64);
        for header in [&mut before, header] {
            if let Some(ustar) = header.as_ustar_mut() {
                ustar.name[..5].copy_from_slice(b"garth");
            }
            header.set_cksum();
        }
        self.pad()?;
        self.out.write_all(before.as_bytes())?;
        self.data(&data)?;
        self.pad()?;
        self.out.write_all(header.as_bytes())
    }

    /// To a full unit.
    fn pad(&mut self) -> io::Result<()> {
        let rest = (std::mem::take(&mut self.body) % UNIT as u64) as usize;
        if rest == 0 { Ok(()) } else { self.out.write_all(&[0; UNIT][rest..]) }
    }
}

/// The length of a record counts its own digits.
fn record_length(text: usize) -> usize {
    let rest = text + 3;
    let digits = |number: usize| number.to_string().len();
    let once = rest + digits(rest);
    rest + digits(once)
}

/// An attribute's name as a record's key, which ends at the first `=`: as GNU tar escapes it.
fn key(name: &[u8]) -> Vec<u8> {
    let mut key = xattrs::RECORD.as_bytes().to_vec();
    for byte in name {
        match byte {
            b'%' => key.extend(b"%25"),
            b'=' => key.extend(b"%3D"),
            other => key.push(*other),
        }
    }
    key
}
