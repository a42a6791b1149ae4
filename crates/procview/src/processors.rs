//! How many processors a sandbox has, and how much of them it used.

use crate::reader::{number, number_of};

/// Kernel ticks of /proc/stat and cpuacct.stat in a second: `USER_HZ`, 100 on every architecture of ours.
pub(crate) const TICK: u64 = 10_000;

/// Processor time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    pub(crate) user: u64,
    pub(crate) system: u64,
}

impl Usage {
    /// cpuacct.stat: ticks.
    pub(crate) fn parse_v1(text: &str) -> Self {
        let ticks = |key| number_of(text, key).unwrap_or(0).saturating_mul(TICK);
        Self { user: ticks("user"), system: ticks("system") }
    }

    /// cpu.stat: microseconds.
    pub(crate) fn parse_v2(text: &str) -> Self {
        let microseconds = |key| number_of(text, key).unwrap_or(0);
        Self { user: microseconds("user_usec"), system: microseconds("system_usec") }
    }
}

/// A quota of processor time for each period; none is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota(Option<(u64, u64)>);

impl Quota {
    /// The two files of version 1.
    pub(crate) fn new(quota: Option<u64>, period: Option<u64>) -> Self {
        Self(quota.zip(period))
    }

    /// cpu.max: "max 100000" or "150000 100000".
    pub(crate) fn parse_v2(text: &str) -> Self {
        let (quota, period) = text.split_once(' ').unwrap_or_default();
        Self::new(number(quota), number(period))
    }

    /// Whole processors: part of one is one, and there are no more than the host's.
    pub(crate) fn processors(self, host: usize) -> usize {
        let host = host.max(1);
        match self.0 {
            Some((quota, period @ 1..)) => usize::try_from(quota.div_ceil(period)).map_or(host, |n| n.clamp(1, host)),
            _ => host,
        }
    }
}

/// The processors of the host: those in its /proc/stat.
pub(crate) fn count(stat: &str) -> usize {
    let numbered = |line: &&str| line.as_bytes().get(3).is_some_and(u8::is_ascii_digit);
    stat.lines().skip(1).take_while(|line| line.starts_with("cpu")).filter(numbered).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_a_processor_is_one_and_the_host_is_the_most() {
        for (quota, period, expected) in [
            ("50000\n", "100000\n", 1),
            ("100000\n", "100000\n", 1),
            ("100001\n", "100000\n", 2),
            ("350000\n", "100000\n", 4),
            ("9900000\n", "100000\n", 8),
            ("18446744073709551615\n", "1\n", 8),
            ("0\n", "100000\n", 1),
            ("1\n", "0\n", 8),
            ("-1\n", "100000\n", 8),
            ("", "", 8),
        ] {
            assert_eq!(Quota::new(number(quota), number(period)).processors(8), expected, "{quota} {period}");
        }
        assert_eq!(Quota::parse_v2("150000 100000\n").processors(8), 2);
        assert_eq!(Quota::parse_v2("max 100000\n").processors(8), 8);
        assert_eq!(Quota::parse_v2("").processors(0), 1);
    }

    #[test]
    fn both_versions_tell_the_same_time() {
        let expected = Usage { user: 1_230_000, system: 450_000 };
        assert_eq!(Usage::parse_v1("user 123\nsystem 45\n"), expected);
        assert_eq!(
            Usage::parse_v2("usage_usec 1680000\nuser_usec 1230000\nsystem_usec 450000\nnr_periods 0\n"),
            expected
        );
        assert_eq!(Usage::parse_v1("nonsense"), Usage::default());
    }

    #[test]
    fn the_hosts_processors_are_counted() {
        assert_eq!(count("cpu  1 2\ncpu0 1\ncpu1 1\ncpu17 1\nintr 0 0\nctxt 0\n"), 3);
        assert_eq!(count(""), 0);
    }
}
