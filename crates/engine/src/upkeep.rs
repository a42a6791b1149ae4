//! Work on the side, each bit of it because something happened: an idle daemon does not wake up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::engine::Shared;

/// How long changes are gathered before the store is copied.
const COPY_DELAY: Duration = Duration::from_secs(60);

/// How often the pool is looked after while sandboxes run: they may fill 16 GiB of headroom, no faster
/// than a disk writes.
const MAINTENANCE: Duration = Duration::from_secs(10);

/// How long deletions are gathered before their space is given back.
const GATHER: Duration = Duration::from_secs(1);

/// Begins to look after the store and the pool.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    tokio::spawn(copies(Arc::clone(shared)));
    tokio::spawn(maintenance(Arc::clone(shared)));
}

async fn copies(shared: Arc<Shared>) {
    let backups = Arc::clone(shared.store.backups());
    drop(shared);
    run(&backups, |backups| backups.copy()).await;
    loop {
        backups.work.notified().await;
        run(&backups, |backups| backups.checkpoint()).await;
        if backups.copy_due() {
            sleep(COPY_DELAY).await;
            run(&backups, |backups| backups.copy()).await;
        }
    }
}

async fn run(backups: &Arc<crate::store::Backups>, work: fn(&crate::store::Backups) -> Result<(), crate::Error>) {
    let backups = Arc::clone(backups);
    match tokio::task::spawn_blocking(move || work(&backups)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = error.chain(), "the store has no fresh copy"),
        Err(error) => tracing::error!(%error, "copying the store"),
    }
}

async fn maintenance(shared: Arc<Shared>) {
    let mut busy = shared.busy.subscribe();
    loop {
        let runs = *busy.borrow_and_update();
        tokio::select! {
            _ = busy.changed() => continue,
            () = shared.freed.notified() => sleep(GATHER).await,
            () = sleep(MAINTENANCE), if runs => {}
        }
        if shared.closing() {
            return;
        }
        let shared = Arc::clone(&shared);
        let maintained = tokio::task::spawn_blocking(move || shared.local.maintain()).await;
        match maintained {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = error.chain(), "the pool could not be looked after"),
            Err(error) => tracing::error!(%error, "looking after the pool"),
        }
    }
}
