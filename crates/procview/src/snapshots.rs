//! What an open file said when it was read from its start, so that the next parts fit to the first.
//!
//! A sandbox can open as many files as it likes; what is held for them is bounded, the oldest goes first, and is made
//! anew should it still be read.

use std::collections::VecDeque;

const COUNT: usize = 1024;
const BYTES: usize = 512 << 10;

#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// The oldest first.
    held: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    /// The last one given back, to be filled again.
    spare: Vec<u8>,
}

impl Snapshots {
    pub(crate) fn get(&self, handle: u64) -> Option<&[u8]> {
        self.held.iter().rev().find(|(held, _)| *held == handle).map(|(_, text)| text.as_slice())
    }

    pub(crate) fn put(&mut self, handle: u64, text: &[u8]) {
        self.remove(handle);
        while !self.held.is_empty() && (self.held.len() >= COUNT || self.bytes + text.len() > BYTES) {
            self.remove_oldest();
        }
        let mut copy = std::mem::take(&mut self.spare);
        // A buffer once used for a large file would be counted as small.
        if copy.capacity() > 2 * text.len() {
            copy = Vec::new();
        }
        copy.clear();
        copy.extend_from_slice(text);
        self.bytes += copy.capacity();
        self.held.push_back((handle, copy));
    }

    pub(crate) fn remove(&mut self, handle: u64) {
        if let Some(at) = self.held.iter().rposition(|(held, _)| *held == handle) {
            let removed = self.held.remove(at);
            self.take_back(removed);
        }
        if self.held.is_empty() {
            self.held.shrink_to(64);
        }
    }

    fn remove_oldest(&mut self) {
        let removed = self.held.pop_front();
        self.take_back(removed);
    }

    fn take_back(&mut self, removed: Option<(u64, Vec<u8>)>) {
        if let Some((_, text)) = removed {
            self.bytes -= text.capacity();
            self.spare = text;
        }
    }

    /// Bytes held, and how many snapshots.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        let bytes = self.held.iter().map(|(_, text)| text.capacity()).sum();
        assert_eq!(bytes, self.bytes);
        (bytes, self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_stays_until_given_back_and_is_replaced_in_place() {
        let mut snapshots = Snapshots::default();
        snapshots.put(1, b"one");
        snapshots.put(2, b"two");
        snapshots.put(1, b"uno");
        assert_eq!((snapshots.get(1), snapshots.get(2)), (Some(&b"uno"[..]), Some(&b"two"[..])));
        snapshots.remove(1);
        assert_eq!((snapshots.get(1), snapshots.size().1), (None, 1));
        snapshots.remove(1);
        snapshots.remove(2);
        assert_eq!(snapshots.size(), (0, 0));
    }

    #[test]
    fn many_small_ones_are_bounded_in_number() {
        let mut snapshots = Snapshots::default();
        (0..5000).for_each(|handle| snapshots.put(handle, b"x"));
        assert_eq!(snapshots.size().1, COUNT);
        assert_eq!((snapshots.get(4999), snapshots.get(0)), (Some(&b"x"[..]), None));
    }

    #[test]
    fn many_large_ones_are_bounded_in_bytes() {
        let mut snapshots = Snapshots::default();
        for handle in 0..5000 {
            let length = if handle % 2 == 0 { 100_000 } else { 10 };
            snapshots.put(handle, &vec![b'x'; length]);
            assert!(snapshots.size().0 <= BYTES);
        }
        snapshots.put(9, &vec![b'y'; 4 * BYTES]);
        assert_eq!((snapshots.get(9).map(<[u8]>::len), snapshots.size().1), (Some(4 * BYTES), 1));
    }
}
