//! /proc/diskstats: the host's disks are not the sandbox's business, its own reads and writes are.

use std::io::Write;

/// Reads, writes and discards over all disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Disk {
    read: Traffic,
    written: Traffic,
    discarded: Traffic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Traffic {
    operations: u64,
    bytes: u64,
}

const SECTOR: u64 = 512;

impl Disk {
    /// io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6" for each disk.
    pub(crate) fn parse_v2(text: &str) -> Self {
        let mut disk = Self::default();
        for (key, value) in text.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
            let sum = match key {
                "rbytes" => &mut disk.read.bytes,
                "rios" => &mut disk.read.operations,
                "wbytes" => &mut disk.written.bytes,
                "wios" => &mut disk.written.operations,
                "dbytes" => &mut disk.discarded.bytes,
                "dios" => &mut disk.discarded.operations,
                _ => continue,
            };
            *sum = sum.saturating_add(value.parse().unwrap_or(0));
        }
        disk
    }

    /// The two files of version 1: "8:0 Read 1", for each disk and kind, and "Total 9" at the end.
    pub(crate) fn parse_v1(bytes: &str, operations: &str) -> Self {
        let sum = |text: &str, kind: &str| {
            let words = text.lines().map(|line| line.split_ascii_whitespace().skip(1));
            let of_kind =
                words.filter_map(|mut words| (words.next() == Some(kind)).then(|| words.next()?.parse().ok())?);
            of_kind.fold(0, u64::saturating_add)
        };
        let traffic = |kind| Traffic { operations: sum(operations, kind), bytes: sum(bytes, kind) };
        Self { read: traffic("Read"), written: traffic("Write"), discarded: traffic("Discard") }
    }

    /// One device that does not exist, or nothing if nothing is counted here. Times are not known.
    pub(crate) fn render(&self, out: &mut Vec<u8>) {
        if *self == Self::default() {
            return;
        }
        let _ = write!(out, "   0       0 disk");
        for Traffic { operations, bytes } in [self.read, self.written] {
            let _ = write!(out, " {operations} 0 {} 0", bytes / SECTOR);
        }
        let Traffic { operations, bytes } = self.discarded;
        let _ = writeln!(out, " 0 0 0 {operations} 0 {} 0 0 0", bytes / SECTOR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(disk: Disk) -> String {
        let mut out = Vec::new();
        disk.render(&mut out);
        String::from_utf8(out).unwrap()
    }

    const LINE: &str = "   0       0 disk 7 0 24 0 3 0 8 0 0 0 0 1 0 2 0 0 0\n";

    #[test]
    fn disks_are_summed_into_one_that_names_none() {
        let v2 = "8:0 rbytes=8192 wbytes=4096 rios=5 wios=3 dbytes=0 dios=0\n\
            254:16 rbytes=4096 wbytes=0 rios=2 wios=0 dbytes=1024 dios=1 cost.usage=9\n";
        assert_eq!(rendered(Disk::parse_v2(v2)), LINE);
        let bytes = "8:0 Read 8192\n8:0 Write 4096\n8:0 Sync 1\n8:0 Total 12288\n254:16 Read 4096\n\
            254:16 Discard 1024\nTotal 99999\n";
        let operations = "8:0 Read 5\n8:0 Write 3\n254:16 Read 2\n254:16 Discard 1\nTotal 11\n";
        assert_eq!(rendered(Disk::parse_v1(bytes, operations)), LINE);
    }

    #[test]
    fn a_line_has_as_many_fields_as_the_kernels() {
        assert_eq!(LINE.split_ascii_whitespace().count(), 20);
    }

    #[test]
    fn nothing_counted_is_no_line() {
        assert_eq!(rendered(Disk::parse_v2("")), "");
        assert_eq!(rendered(Disk::parse_v1("Total 0\n", "Total 0\n")), "");
        assert_eq!(rendered(Disk::parse_v2("8:0 rbytes=x =\n")), "");
    }
}
