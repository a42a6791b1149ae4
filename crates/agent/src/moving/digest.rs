//! What makes two trees the same: one digest over all that a stream carries, in its order.
//!
//! BLAKE3: about twice as fast as SHA-256 where neither has instructions of its own, as in a guest without KVM.

use blake3::Hasher;

use super::entry::{Entry, Kind};

/// Content is digested in blocks of this size, of which those of zeros do not count.
pub const BLOCK: usize = 64 << 10;

/// A digest.
pub type Hash = [u8; 32];

/// A tree in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Of everything.
    pub digest: Hash,
    /// Files, directories, links, deletions.
    pub entries: u64,
    /// The lengths of all regular files.
    pub bytes: u64,
}

impl Summary {
    /// The digest in hexadecimal digits.
    pub fn hex(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A summary in the making.
#[derive(Debug, Clone, Default)]
pub struct Digest {
    hasher: Hasher,
    entries: u64,
    bytes: u64,
}

impl Digest {
    /// The next entry, and the digest of its content, if it has any. Mounts are no part of a tree.
    pub fn add(&mut self, entry: &Entry, content: Option<&Hash>) {
        let mut record = Vec::new();
        let number = |record: &mut Vec<u8>, number: u64| record.extend_from_slice(&number.to_le_bytes());
        let (kind, first, second, target): (u8, u64, u64, &[u8]) = match &entry.kind {
            Kind::File(size) => (b'f', *size, 0, &[]),
            Kind::Directory => (b'd', 0, 0, &[]),
            Kind::Symlink(target) => (b's', 0, 0, target),
            Kind::Link(target) => (b'l', 0, 0, target),
            Kind::Fifo => (b'p', 0, 0, &[]),
            Kind::Character(device) => (b'c', device.major.into(), device.minor.into(), &[]),
            Kind::Block(device) => (b'b', device.major.into(), device.minor.into(), &[]),
            Kind::Deleted => (b'x', 0, 0, &[]),
            Kind::Mount(_) => return,
        };
        record.push(kind);
        let facts = &entry.facts;
        for value in [first, second, facts.mode.into(), facts.uid.into(), facts.gid.into()] {
            number(&mut record, value);
        }
        number(&mut record, facts.modified.tv_sec.cast_unsigned());
        number(&mut record, facts.modified.tv_nsec.cast_unsigned());
        number(&mut record, entry.xattrs.len() as u64);
        let texts = entry.xattrs.iter().flat_map(|(name, value)| [name.as_slice(), value]);
        for text in [entry.path.as_slice(), target].into_iter().chain(texts) {
            number(&mut record, text.len() as u64);
            record.extend_from_slice(text);
        }
        record.extend_from_slice(content.unwrap_or(&[0; 32]));
        self.hasher.update(&record);
        self.entries += 1;
        self.bytes += if let Kind::File(size) = entry.kind { size } else { 0 };
    }

    /// What it has come to.
    pub fn summary(&self) -> Summary {
        Summary { digest: *self.hasher.finalize().as_bytes(), entries: self.entries, bytes: self.bytes }
    }
}

/// The digest of one file's content. Where its holes are does not matter, only what is read: a filesystem may give them
/// back larger or smaller.
#[derive(Debug)]
pub struct Content {
    hasher: Hasher,
    block: Vec<u8>,
    /// Which block of the file it is.
    number: u64,
}

impl Content {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self { hasher: Hasher::new(), block: vec![0; BLOCK], number: 0 }
    }

    /// The next data of the file; between it and the last there are zeros.
    pub fn add(&mut self, offset: u64, data: &[u8]) {
        let (mut offset, mut data) = (offset, data);
        while !data.is_empty() {
            let (number, start) = (offset / BLOCK as u64, (offset % BLOCK as u64) as usize);
            if number != self.number {
                self.flush();
                self.number = number;
            }
            let count = data.len().min(BLOCK - start);
            self.block[start..start + count].copy_from_slice(&data[..count]);
            (offset, data) = (offset + count as u64, &data[count..]);
        }
    }

    fn flush(&mut self) {
        if self.block.iter().any(|byte| *byte != 0) {
            self.hasher.update(&self.number.to_le_bytes());
            self.hasher.update(&self.block);
            self.block.fill(0);
        }
    }

    /// The digest; it begins anew.
    pub fn finish(&mut self) -> Hash {
        self.flush();
        self.number = 0;
        let hash = *self.hasher.finalize().as_bytes();
        self.hasher.reset();
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_the_same_whatever_pieces_and_holes_it_came_in() {
        let mut file = vec![0u8; 3 * BLOCK + 100];
        file[10..20].fill(1);
        file[2 * BLOCK - 5..2 * BLOCK + 5].fill(2);
        let mut content = Content::new();
        content.add(0, &file);
        let whole = content.finish();
        for (number, piece) in file.chunks(777).enumerate() {
            content.add(number as u64 * 777, piece);
        }
        assert_eq!(content.finish(), whole);
        content.add(10, &[1; 10]);
        content.add(2 * BLOCK as u64 - 5, &[2; 10]);
        assert_eq!(content.finish(), whole);
        content.add(11, &[1; 10]);
        content.add(2 * BLOCK as u64 - 5, &[2; 10]);
        assert_ne!(content.finish(), whole);
    }
}
