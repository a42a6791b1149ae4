//! A file or directory as a tar stream. Links are not followed; only regular files are opened.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tar::{Builder, EntryType, Header, HeaderMode};

use crate::xattrs::{self, Xattrs};

/// What to pack, and the name it has in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// The file, directory or link.
    pub path: PathBuf,
    /// Its name in the stream.
    pub name: PathBuf,
}

/// Writes `top` and all below it. Sockets are left out, as by tar(1); so are the kernel's own filesystems.
pub fn pack(top: Top, out: impl Write) -> io::Result<()> {
    let mut builder = Builder::new(out);
    builder.mode(HeaderMode::Complete);
    let mut packer = Packer { builder, links: HashMap::new(), xattrs: Xattrs::new() };
    // A stack, not recursion: the depth is the sandbox's choice.
    let mut waiting = vec![top];
    while let Some(Top { path, name }) = waiting.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            // It went away since its directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !packer.links.is_empty() => continue,
            other => other?,
        };
        packer.add(&path, &name, &metadata)?;
        if metadata.is_dir() && !is_kernel_s(&path) {
            let mut entries: Vec<OsString> =
                fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<_>>()?;
            entries.sort_by(|a, b| b.cmp(a));
            waiting.extend(entries.into_iter().map(|entry| Top { path: path.join(&entry), name: name.join(&entry) }));
        }
    }
    packer.builder.finish()
}

/// procfs and sysfs have no end and no sizes.
#[expect(clippy::useless_conversion, reason = "the C libraries differ in the type of f_type")]
fn is_kernel_s(path: &Path) -> bool {
    const PROC: i64 = 0x9fa0;
    const SYSFS: i64 = 0x6265_6572;
    rustix::fs::statfs(path).is_ok_and(|stat| [PROC, SYSFS].contains(&i64::from(stat.f_type)))
}

struct Packer<W: Write> {
    builder: Builder<W>,
    /// Files with several names, by device and inode, and the first of the names.
    links: HashMap<(u64, u64), PathBuf>,
    xattrs: Xattrs,
}

impl<W: Write> Packer<W> {
    fn add(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
        let kind = metadata.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_metadata_in_mode(metadata, HeaderMode::Complete);
        if !metadata.is_dir() && metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&key) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                return self.builder.append_link(&mut header, name, first.clone());
            }
            self.links.insert(key, name.to_owned());
        }
        if kind.is_file() {
            return self.add_file(path, name, header);
        }
        header.set_size(0);
        self.add_xattrs(path)?;
        if kind.is_symlink() {
            return self.builder.append_link(&mut header, name, fs::read_link(path)?);
        }
        self.builder.append_data(&mut header, name, io::empty())
    }

    fn add_file(&mut self, path: &Path, name: &Path, mut header: Header) -> io::Result<()> {
        // It was a regular file a moment ago; a FIFO put in its place must not block, nor a link be followed.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other(format!("{} changed while it was read", path.display())));
        }
        self.add_xattrs(path)?;
        if metadata.blocks() * 512 < metadata.len() {
            // It has holes, which this call leaves out.
            return self.builder.append_file(name, &mut file);
        }
        header.set_size(metadata.len());
        self.builder.append_data(&mut header, name, Exactly { file, left: metadata.len() })
    }

    /// Those that can be read and have a name that is text.
    fn add_xattrs(&mut self, path: &Path) -> io::Result<()> {
        let found = self.xattrs.of(path).unwrap_or_default();
        let record = |(name, value)| Some((format!("{}{}", xattrs::RECORD, String::from_utf8(name).ok()?), value));
        let records: Vec<(String, Vec<u8>)> = found.into_iter().filter_map(record).collect();
        if records.is_empty() {
            return Ok(());
        }
        self.builder.append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }
}

/// A file as long as its header says, whatever happens to it meanwhile: cut when it grows, filled with zeros when it shrinks.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let mut count = self.file.read(&mut buffer[..wanted])?;
        if count == 0 {
            buffer[..wanted].fill(0);
            count = wanted;
        }
        self.left -= count as u64;
        Ok(count)
    }
}
