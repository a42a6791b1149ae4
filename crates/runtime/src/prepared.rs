use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use garth_spec::SandboxId;

use crate::error::{Doing, ErrorKind, Result};
use crate::recycler::Job;
use crate::sandboxes::Shared;
use crate::slots::Slot;
use crate::{Sandbox, SandboxPlan, disk};

/// What a sandbox will run in. Dropped unused, it is made ready for another.
#[derive(Debug)]
pub struct Prepared {
    slot: Option<Slot>,
    shared: Arc<Shared>,
}

impl Prepared {
    pub(crate) fn new(slot: Slot, shared: Arc<Shared>) -> Self {
        Self { slot: Some(slot), shared }
    }

    /// The sandbox's own network namespace, with nothing in it but loopback, down; `None` where it is given one at the
    /// start.
    pub fn netns(&self) -> Option<BorrowedFd<'_>> {
        Some(self.slot.as_ref()?.keeper.as_ref()?.netns.as_fd())
    }

    /// Starts the sandbox. Returns when its init has applied the plan; the agent answers on [`Sandbox::agent_socket`] right
    /// after (requests wait in the socket). After an error nothing of the sandbox is left.
    ///
    /// For sandboxes with a network namespace of their own, which is configured by then.
    pub fn start(self, id: SandboxId, plan: &SandboxPlan) -> Result<Sandbox> {
        plan.check().doing(|| "carry out the plan".to_owned())?;
        self.enter(id, plan, None)
    }

    pub(crate) fn enter(mut self, id: SandboxId, plan: &SandboxPlan, netns: Option<&OwnedFd>) -> Result<Sandbox> {
        let mut slot = self.slot.take().ok_or(ErrorKind::Spawner).doing(|| "start the sandbox".to_owned())?;
        let result = self.shared.enter(&mut slot, id, plan, netns);
        self.shared.send(Job::Refill);
        match result {
            Ok(()) => Ok(Sandbox::new(id, slot, disk::uppers(plan), Arc::clone(&self.shared))),
            Err(e) => {
                self.shared.abandon(slot, plan);
                Err(e)
            }
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.send(Job::Unused(slot));
        }
    }
}
