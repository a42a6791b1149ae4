use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::garth::Garth;
use crate::peers::{Peer, Running};
use crate::stats::Samples;

/// One of those that take turns.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// One whole life of a peer's sandbox.
    Life(&'a Peer),
    /// `true` in a peer's sandbox that runs already.
    Exec(&'a Running),
    /// One whole life of a sandbox of ours.
    GarthLife(&'a Garth),
    /// `true` in one of ours.
    GarthExec(&'a Garth),
}

impl Subject<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::Life(peer) => peer.name(),
            Self::Exec(running) => running.name(),
            Self::GarthLife(garth) | Self::GarthExec(garth) => garth.name(),
        }
    }

    async fn prepare(self, at_once: usize) -> Result<()> {
        match self {
            Self::Life(_) | Self::Exec(_) => Ok(()),
            Self::GarthLife(garth) => garth.prepare(at_once).await,
            Self::GarthExec(garth) => garth.keep_running().await,
        }
    }

    async fn measure(self, at_once: usize) -> Result<Vec<Duration>> {
        match self {
            Self::Life(peer) => peer.start_true_stop(at_once),
            Self::Exec(running) => running.exec_true(at_once),
            Self::GarthLife(garth) => garth.start_true_stop(at_once).await,
            Self::GarthExec(garth) => garth.exec_true(at_once).await,
        }
    }

    fn is_garth(self) -> bool {
        matches!(self, Self::GarthLife(_) | Self::GarthExec(_))
    }
}

/// Rounds in which every subject has one turn, after one that is not counted; none when there are to be none. A peer that fails is noted and has no more turns at this number at once.
pub async fn take_turns(
    subjects: Vec<Subject<'_>>,
    at_once: usize,
    rounds: usize,
    notes: &mut Vec<String>,
) -> Result<Vec<Samples>> {
    if rounds == 0 {
        return Ok(Vec::new());
    }
    let mut samples: Vec<Samples> = subjects.iter().map(|s| Samples::new(s.name(), at_once)).collect();
    for subject in &subjects {
        subject.prepare(at_once).await?;
    }
    let mut turns: Vec<Option<Subject<'_>>> = subjects.into_iter().map(Some).collect();
    for round in 0..=rounds {
        for index in order(round, turns.len()) {
            let Some(subject) = turns[index] else { continue };
            match subject.measure(at_once).await {
                Ok(times) => samples[index].extend_unless_warm_up(round, times),
                Err(error) if subject.is_garth() => {
                    return Err(error).with_context(|| format!("{}, {at_once} at once", subject.name()));
                }
                Err(error) => {
                    notes.push(format!("{} failed at {at_once} at once: {error:#}", subject.name()));
                    samples[index].clear();
                    turns[index] = None;
                }
            }
        }
    }
    samples.retain(|s| s.len() > 0);
    Ok(samples)
}

/// An order of its own for each round, so that nobody always follows the same one and pays for what that left to do.
pub fn order(round: usize, count: usize) -> Vec<usize> {
    let mut state = round as u64 + 1;
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        // Knuth's MMIX generator; the high bits are the random ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_everyone_once_and_in_another_order() {
        let mut orders: Vec<_> = (0..20).map(|round| order(round, 8)).collect();
        for order in &mut orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..8).collect::<Vec<_>>());
        }
        orders.dedup();
        assert_eq!(orders.len(), 20);
    }
}
