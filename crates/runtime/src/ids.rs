//! Ranges of user and group ids on the host, one for each sandbox of mapped users.
//!
//! A range is claimed by a lock on one byte of a file that all daemons of the machine share. The lock belongs to an open
//! file, which the sandbox's keeper holds as well as the daemon: so a range is taken as long as either lives, however
//! they end, and given back by the kernel exactly once. No record can be left behind or forgotten.
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use garth_kernel::filelock;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

/// How many ids a sandbox has.
pub const IDS: u32 = 65_536;

/// What is used where `/etc/subuid` has no entry for `garth`: above the ranges that systemd gives to users and
/// containers (systemd's UIDS-GIDS.md), below those that 32-bit programs take for negative.
const DEFAULT: Range<u32> = 0x7000_0000..0x8000_0000;

/// The user whose entry in `/etc/subuid` and `/etc/subgid` is meant for sandboxes.
const USER: &str = "garth";

/// The first id of a range on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FirstId(u32);

impl FirstId {
    /// One that was claimed by another process.
    pub(crate) fn of(first: u32) -> Self {
        Self(first)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// A claimed range: this process's until it is dropped, and that of every process that the descriptor was given to.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) first: FirstId,
    pub(crate) lock: OwnedFd,
}

/// All ranges that sandboxes of this machine may have.
#[derive(Debug)]
pub(crate) struct IdRanges {
    ids: Range<u32>,
    /// Ranges on the host that belong to someone else.
    taken: Vec<Range<u32>>,
    locks: PathBuf,
}

impl IdRanges {
    /// Reads the machine's account files.
    pub(crate) fn read() -> io::Result<Self> {
        let text = |path: &str| match std::fs::read_to_string(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            result => result,
        };
        let (subuid, subgid) = (text("/etc/subuid")?, text("/etc/subgid")?);
        let (passwd, group) = (text("/etc/passwd")?, text("/etc/group")?);
        Ok(Self::of(&[&subuid, &subgid], &[&passwd, &group], Path::new("/run/garth/ids.lock")))
    }

    fn of(sub: &[&str], accounts: &[&str], locks: &Path) -> Self {
        let mut taken: Vec<Range<u32>> = Vec::new();
        // The part that both files give; the default where one gives none.
        let mut ids = None;
        for text in sub {
            let mut own = None;
            for (name, range) in text.lines().filter_map(entry) {
                match name {
                    USER => own = own.or(Some(range)),
                    _ => taken.push(range),
                }
            }
            ids = match (ids, own) {
                (None, own) => own,
                (Some(a), Some(b)) => Some(a.start.max(b.start)..a.end.min(b.end)),
                (some, None) => some,
            };
        }
        let numbers =
            accounts.iter().flat_map(|text| text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()));
        taken.extend(numbers.map(|id: u32| id..id.saturating_add(1)));
        Self { ids: ids.unwrap_or(DEFAULT), taken, locks: locks.to_owned() }
    }

    /// How many ranges there are, and that in words.
    pub(crate) fn describe(&self) -> (usize, String) {
        let free = (0..self.count()).filter(|index| self.is_free(*index)).count();
        (free, format!("{free} ranges of {IDS} ids from {} on", self.ids.start))
    }

    fn count(&self) -> u32 {
        self.ids.len().try_into().unwrap_or(u32::MAX) / IDS
    }

    fn first(&self, index: u32) -> u32 {
        self.ids.start + index * IDS
    }

    fn is_free(&self, index: u32) -> bool {
        let first = self.first(index);
        let range = first..first + IDS;
        first >= IDS && !self.taken.iter().any(|taken| taken.start < range.end && range.start < taken.end)
    }

    /// Claims a range that no one else has. `None` when all are taken.
    pub(crate) fn claim(&self, random: u32) -> io::Result<Option<Claim>> {
        let count = self.count();
        for step in 0..count {
            let index = (random % count.max(1) + step) % count;
            if self.is_free(index)
                && let Some(claim) = self.claim_index(index)?
            {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    /// Claims this range, of a sandbox that an earlier daemon started. `None` when someone has it: its keeper, which is
    /// as well.
    pub(crate) fn claim_again(&self, first: FirstId) -> io::Result<Option<Claim>> {
        self.claim_at(first.get())
    }

    fn claim_index(&self, index: u32) -> io::Result<Option<Claim>> {
        self.claim_at(self.first(index))
    }

    fn claim_at(&self, first: u32) -> io::Result<Option<Claim>> {
        if let Some(directory) = self.locks.parent() {
            std::fs::create_dir_all(directory)?;
        }
        // Opened for each claim: such locks belong to the open file.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::open(&self.locks, flags, Mode::RUSR | Mode::WUSR)?);
        Ok(filelock::claim(file.as_fd(), first / IDS)?.then(|| Claim { first: FirstId(first), lock: file.into() }))
    }
}

/// `name:first:count` of subuid(5).
fn entry(line: &str) -> Option<(&str, Range<u32>)> {
    let mut words = line.trim().split(':');
    let (name, first, count) = (words.next()?, words.next()?.parse::<u32>().ok()?, words.next()?.parse::<u32>().ok()?);
    Some((name, first..first.saturating_add(count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(sub: &str, accounts: &str, dir: &tempfile::TempDir) -> IdRanges {
        IdRanges::of(&[sub, sub], &[accounts], &dir.path().join("ids.lock"))
    }

    /// What is free once no program that another test starts has a copy of the lock any more.
    fn freed<T>(mut claim: impl FnMut() -> Option<T>) -> T {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            match claim() {
                Some(claimed) => return claimed,
                None => assert!(std::time::Instant::now() < deadline, "it is not free"),
            }
        }
    }

    #[test]
    fn no_two_claims_share_a_range_and_a_dropped_one_is_free_again() {
        let dir = tempfile::tempdir().expect("dir");
        let one = ranges("garth:1000000:131072\n", "", &dir);
        let other = ranges("garth:1000000:131072\n", "", &dir);
        let first = one.claim(1).expect("claim").expect("free");
        let second = other.claim(1).expect("claim").expect("free");
        assert_ne!(first.first, second.first);
        assert!(one.claim(0).expect("claim").is_none());
        let was = first.first;
        drop(first);
        assert_eq!(freed(|| other.claim(0).expect("claim")).first, was);
    }

    #[test]
    fn a_copy_of_the_lock_keeps_the_range_taken() {
        let dir = tempfile::tempdir().expect("dir");
        let ranges = ranges("garth:1000000:65536\n", "", &dir);
        let claim = ranges.claim(0).expect("claim").expect("free");
        let copy = claim.lock.try_clone().expect("copy");
        drop(claim);
        assert!(ranges.claim(0).expect("claim").is_none());
        drop(copy);
        freed(|| ranges.claim(0).expect("claim"));
    }

    #[test]
    fn ids_of_others_are_left_out() {
        let dir = tempfile::tempdir().expect("dir");
        let sub = "garth:1000000:262144\nalice:1065536:65536\n";
        let ranges = ranges(sub, "bob:x:1131073:1131073::/:/bin/sh\n", &dir);
        let claims: Vec<Claim> = std::iter::from_fn(|| ranges.claim(0).expect("claim")).collect();
        let firsts: Vec<u32> = claims.iter().map(|claim| claim.first.get()).collect();
        assert_eq!(firsts, [1_000_000, 1_000_000 + 3 * IDS]);
    }

    #[test]
    fn without_an_entry_there_are_thousands() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(ranges("", "root:x:0:0::/root:/bin/sh\n", &dir).count(), 4096);
    }
}
