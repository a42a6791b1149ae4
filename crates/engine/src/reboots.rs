//! How often a sandbox that restarts itself by reboot(2) is started again.
use std::time::{Duration, Instant};

/// One that restarts itself sooner after its start has done little else.
const SOON: Duration = Duration::from_secs(10);
/// So many of these in a row are started again; after them it is left stopped.
const MOST_IN_A_ROW: u32 = 5;

/// One project's.
#[derive(Debug, Default)]
pub(crate) struct Reboots {
    started: Option<Instant>,
    soon_in_a_row: u32,
}

impl Reboots {
    /// Its sandbox was started.
    pub(crate) fn started(&mut self, now: Instant) {
        self.started = Some(now);
    }

    /// Whether its sandbox, which has just restarted itself, is started again.
    pub(crate) fn may_start_again(&mut self, now: Instant) -> bool {
        let soon = self.started.is_some_and(|started| now.saturating_duration_since(started) < SOON);
        self.soon_in_a_row = if soon { self.soon_in_a_row + 1 } else { 0 };
        let may = self.soon_in_a_row <= MOST_IN_A_ROW;
        if !may {
            self.soon_in_a_row = 0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_ends_and_a_reboot_now_and_then_does_not_count() {
        let mut reboots = Reboots::default();
        let mut now = Instant::now();
        let mut reboot_after = |seconds: u64| {
            reboots.started(now);
            now += Duration::from_secs(seconds);
            reboots.may_start_again(now)
        };
        assert!((0..100).all(|_| reboot_after(60)), "it runs well in between");
        assert!((0..5).all(|_| reboot_after(1)));
        assert!(!reboot_after(1));
        // Whoever starts it by hand then has as many again.
        assert!((0..5).all(|_| reboot_after(1)));
    }
}
