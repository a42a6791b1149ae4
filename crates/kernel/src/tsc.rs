//! The frequency of the processor's time stamp counter.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Long enough for 10 parts in a million.
const SPAN: Duration = Duration::from_millis(20);

/// Ticks a millisecond, measured once against CLOCK_MONOTONIC_RAW; takes 20 ms the first time.
pub fn khz() -> u64 {
    static KHZ: OnceLock<u64> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

fn measure() -> u64 {
    let (begun, ticks) = (now(), counter());
    let elapsed = loop {
        let elapsed = now().saturating_sub(begun);
        if elapsed >= SPAN {
            break elapsed;
        }
        std::hint::spin_loop();
    };
    let ticks = u128::from(counter().wrapping_sub(ticks));
    u64::try_from(ticks * 1_000_000 / elapsed.as_nanos().max(1)).unwrap_or(0)
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::MonotonicRaw);
    Duration::try_from(time).unwrap_or_default()
}

fn counter() -> u64 {
    // SAFETY: rdtsc reads a register; every x86-64 processor has it, and no kernel of ours forbids it (PR_SET_TSC).
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_processor_ticks_in_gigahertz() {
        let khz = super::khz();
        assert!((100_000..20_000_000).contains(&khz), "{khz}");
        assert_eq!(super::khz(), khz);
    }
}
