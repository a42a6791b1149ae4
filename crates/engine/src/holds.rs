//! Who keeps an ephemeral project alive.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use garth_spec::ProjectName;

use crate::engine::Shared;
use crate::error::{Error, ErrorKind};
use crate::registry::Entry;

/// How long an ephemeral project waits for its first hold, after its making and after a restart of the daemon.
const FIRST_HOLD: Duration = Duration::from_secs(10);

/// Keeps an ephemeral project; the last one to be dropped removes it.
#[derive(Debug)]
pub struct Hold {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
}

impl Hold {
    /// Waits until the project is gone, whatever the hold says.
    pub async fn broken(&self) {
        self.entry.requests.closed().await;
    }
}

/// Takes a hold of an ephemeral project.
pub(crate) fn take(shared: &Arc<Shared>, name: &ProjectName) -> Result<Hold, Error> {
    let entry = shared.registry.find(name)?;
    if !entry.ephemeral {
        return Err(ErrorKind::NotEphemeral(name.clone()).into());
    }
    entry.holds.fetch_add(1, SeqCst);
    let hold = Hold { shared: Arc::clone(shared), entry };
    hold.entry.check_stays()?;
    Ok(hold)
}

/// Removes the project if no one has taken a hold in time.
pub(crate) fn expect_first(shared: &Arc<Shared>, entry: &Arc<Entry>) {
    let (shared, entry) = (Arc::downgrade(shared), Arc::downgrade(entry));
    tokio::spawn(async move {
        tokio::time::sleep(FIRST_HOLD).await;
        if let (Some(shared), Some(entry)) = (shared.upgrade(), entry.upgrade())
            && entry.holds.load(SeqCst) == 0
        {
            let_go(shared, entry);
        }
    });
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.entry.holds.fetch_sub(1, SeqCst) == 1 {
            let_go(Arc::clone(&self.shared), Arc::clone(&self.entry));
        }
    }
}

fn let_go(shared: Arc<Shared>, entry: Arc<Entry>) {
    // A daemon that goes down lets every hold go, and its successor waits for them to come back.
    if shared.closing() || entry.requests.is_closed() {
        return;
    }
    // Outside a runtime there is no one left to do it; the next daemon does.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        match crate::engine::remove(&entry).await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NoProject(_)) => {}
            Err(error) => tracing::error!(project = %entry.name, error = error.chain(), "cannot remove it"),
        }
    });
}
