//! Waiting with a deadline for what tells nobody when it happens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `happened`, and no longer than `limit`. A look that fails ends it.
pub fn wait_for(what: &str, limit: Duration, mut happened: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    while !happened().with_context(|| format!("waiting for {what}"))? {
        if Instant::now() >= end {
            bail!("{what} did not come within {} s", limit.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
