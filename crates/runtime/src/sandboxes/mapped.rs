//! What sandboxes of mapped users need besides: ids of their own, and a keeper.
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::Shared;
use crate::error::{Doing, ErrorKind, Result};
use crate::ids::{Claim, FirstId};
use crate::sandbox::MappedRecord;
use crate::slots::mapped::Succession;
use crate::slots::{Keeper, Process, Slot};
use crate::{Level, keepers};

impl Shared {
    pub(crate) fn claim_ids(&self) -> Result<Claim> {
        let doing = || "find user ids for a sandbox".to_owned();
        let mut random = [0; 4];
        rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty()).doing(doing)?;
        self.ids.claim(u32::from_ne_bytes(random)).doing(doing)?.ok_or(ErrorKind::NoIds).doing(doing)
    }

    /// Of a sandbox that an earlier daemon started. `None` when someone has them.
    pub(crate) fn claim_ids_again(&self, first: FirstId) -> Result<Option<Claim>> {
        self.ids.claim_again(first).doing(|| "claim a sandbox's user ids again".to_owned())
    }

    /// The keeper and the claim on the ids of a sandbox that an earlier daemon started. `None` when it has lost both, and
    /// someone else has its ids now.
    pub(super) fn recover_mapped(
        &self,
        slot: &str,
        init: &Process,
        record: &MappedRecord,
    ) -> Result<Option<(Option<Keeper>, Option<Claim>)>> {
        match self.claim_ids_again(record.first)? {
            // Nobody had them, not even its keeper.
            Some(claim) => {
                let keeper = keepers::recover(self, slot, init, record, claim.lock.as_fd());
                Ok(Some((keeper, Some(claim))))
            }
            None => {
                let keeper = Keeper::find(record, init).doing(|| "find a sandbox's keeper".to_owned())?;
                Ok(keeper.map(|keeper| (Some(keeper), None)))
            }
        }
    }

    /// Has the sandbox's keeper watched, and replaced should it end.
    pub(crate) fn watch_keeper(
        &self,
        slot: &Arc<Mutex<Slot>>,
        init: &Process,
        record: MappedRecord,
        directory: PathBuf,
    ) {
        // A keeper that is gone already has nothing to be copied: its sandbox goes on without.
        let _ = self.keepers.watch(slot, init, record, directory);
    }

    /// Another keeper in the place of one that ended.
    pub(crate) fn succeed(&self, succession: &Succession, slot: &Slot) -> std::result::Result<Keeper, ErrorKind> {
        let claim;
        let lock = match &slot.ids {
            Some(ids) => ids.lock.as_fd(),
            // The keeper alone had it; someone else may since.
            None => {
                claim = self.ids.claim_again(succession.first)?.ok_or(ErrorKind::NoIds)?;
                claim.lock.as_fd()
            }
        };
        self.succeed_with(succession, &slot.name, lock)
    }

    pub(crate) fn succeed_with(
        &self,
        succession: &Succession,
        slot: &str,
        lock: BorrowedFd<'_>,
    ) -> std::result::Result<Keeper, ErrorKind> {
        let mut roots = self.roots();
        let root = self.root(&mut roots, Level::Sysbox).map_err(|e| e.kind)?;
        succession.succeed(root, lock, &self.cgroups, slot)
    }
}
