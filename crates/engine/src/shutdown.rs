//! What a sandbox is given time for before it is ended.
use std::time::{Duration, Instant};

use crate::local::Live;

/// Lets the processes in a sandbox end by themselves; what does not is killed with the sandbox.
pub(crate) async fn end_processes(live: Option<&Live>, grace: Duration, has_init: bool) {
    let Some(live) = live else { return };
    let begun = Instant::now();
    let asked = tokio::select! {
        asked = live.agent.shut_down(grace) => asked,
        () = live.sandbox.ended() => return,
    };
    if has_init {
        // The agent told the init and is no more than one of those that it ends.
        let left = grace.saturating_sub(begun.elapsed());
        if tokio::time::timeout(left, live.sandbox.ended()).await.is_ok() {
            return;
        }
        tracing::warn!("the init did not end the sandbox in time");
    }
    let within = match asked {
        Ok(()) => WRITTEN_WITHIN,
        Err(error) => {
            tracing::warn!(error = error.chain(), "the agent does not end the sandbox's processes");
            LAST_WORD
        }
    };
    if live.sandbox.is_machine() {
        power_off(live, within).await;
    }
}

/// How long a guest may take to write out what it has in memory, and to end: a fifth of it may be due for its disk
/// (`vm.dirty_ratio`), and what is not written is lost.
pub(crate) const WRITTEN_WITHIN: Duration = Duration::from_secs(60);
/// The same of one whose agent was silent before: it may be slow, or hang.
const LAST_WORD: Duration = Duration::from_secs(10);

/// Has a guest write its disk out, whatever else hangs in it.
pub(crate) async fn settle(live: &Live) {
    if let Err(error) = live.agent.post("/garth/guest/freeze", Vec::new(), WRITTEN_WITHIN).await {
        tracing::warn!(error = error.chain(), "the guest's disk is as after a power cut");
    }
}

/// A guest's disk is whole once the guest has ended by itself; else its journal mends it, as after a power cut.
pub(crate) async fn power_off(live: &Live, within: Duration) {
    let asked = async {
        // What works has no answer.
        if let Err(error) = live.agent.post("/garth/guest/power", b"\"off\"".to_vec(), within).await {
            tracing::debug!(error = error.chain(), "the guest's last word");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = asked => {}
        () = tokio::time::sleep(within) => tracing::warn!("the guest does not end: its disk is as after a power cut"),
        () = live.sandbox.ended() => {}
    }
}
