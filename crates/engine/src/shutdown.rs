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
    if let Err(error) = asked {
        tracing::warn!(error = error.chain(), "stopping without the agent");
    } else if live.sandbox.is_machine() {
        power_off(live).await;
    }
}

/// How long a guest may take to write its disk out and end.
const POWER_OFF: Duration = Duration::from_secs(10);

/// Has a guest write its disk out, whatever else hangs in it.
pub(crate) async fn settle(live: &Live) {
    if let Err(error) = live.agent.post("/garth/guest/freeze", Vec::new(), POWER_OFF).await {
        tracing::warn!(error = error.chain(), "the guest's disk is as after a power cut");
    }
}

/// A guest's disk is whole once the guest has ended by itself; else its journal mends it, as after a power cut.
pub(crate) async fn power_off(live: &Live) {
    tokio::select! {
        // What works has no answer.
        refused = live.agent.post("/garth/guest/power", b"\"off\"".to_vec(), POWER_OFF) => {
            if let Err(error) = refused {
                tracing::debug!(error = error.chain(), "the guest's last word");
            }
            let _ = tokio::time::timeout(POWER_OFF, live.sandbox.ended()).await;
        }
        () = live.sandbox.ended() => {}
    }
}
