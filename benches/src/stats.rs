use std::time::Duration;

use serde::Serialize;

/// Times of one subject, so many of it at once.
#[derive(Debug, Clone)]
pub struct Samples {
    pub subject: &'static str,
    pub at_once: usize,
    times: Vec<Duration>,
}

/// What a table shows of [`Samples`], in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
}

/// Quantiles of one subject over those of another: no longer milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ratios {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Quantiles {
    /// Nothing of nothing.
    pub fn of(mut ms: Vec<f64>) -> Option<Self> {
        ms.sort_by(f64::total_cmp);
        let at = |q: f64| ms.get(((ms.len() as f64 * q).ceil() as usize).max(1) - 1).copied();
        Some(Self { p50_ms: at(0.50)?, p95_ms: at(0.95)?, p99_ms: at(0.99)? })
    }

    pub fn over(self, base: Self) -> Ratios {
        Ratios { p50: self.p50_ms / base.p50_ms, p95: self.p95_ms / base.p95_ms, p99: self.p99_ms / base.p99_ms }
    }
}

impl Samples {
    pub fn new(subject: &'static str, at_once: usize) -> Self {
        Self { subject, at_once, times: Vec::new() }
    }

    /// The first round fills caches and pools and is not counted, for any subject.
    pub fn extend_unless_warm_up(&mut self, round: usize, times: Vec<Duration>) {
        if round > 0 {
            self.times.extend(times);
        }
    }

    pub fn clear(&mut self) {
        self.times.clear();
    }

    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn quantiles(&self) -> Option<Quantiles> {
        Quantiles::of(self.times.iter().map(|time| time.as_secs_f64() * 1e3).collect())
    }
}

/// A median, and where the true one is with a probability of at least 95 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// 0 of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// By order statistics, so that nothing is assumed of how the values are spread: the median is above the k-th smallest
/// value but for a probability of 2^-n times the sum of C(n, i) for i < k.
pub fn median_with_interval(mut values: Vec<f64>) -> Option<Interval> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let (mut below, mut term, mut k) = (0.0, 0.5f64.powi(i32::try_from(n).ok()?), 0);
    while k < n / 2 && below + term <= 0.025 {
        below += term;
        term *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    let k = k.max(1);
    Some(Interval { median: median(values.clone()), low: *values.get(k - 1)?, high: *values.get(n - k)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_and_the_warm_up_is_none() {
        let mut samples = Samples::new("x", 1);
        samples.extend_unless_warm_up(0, vec![Duration::from_secs(100)]);
        samples.extend_unless_warm_up(1, (1..=100).map(Duration::from_millis).collect());
        let quantiles = samples.quantiles().expect("samples");
        assert_eq!((quantiles.p50_ms, quantiles.p95_ms, quantiles.p99_ms), (50.0, 95.0, 99.0));
    }

    #[test]
    fn an_interval_is_as_the_table_of_the_sign_test_says() {
        let interval = |n: u32| median_with_interval((1..=n).rev().map(f64::from).collect());
        let of = |median, low, high| Some(Interval { median, low, high });
        assert_eq!(interval(11), of(6.0, 2.0, 10.0));
        assert_eq!(interval(21), of(11.0, 6.0, 16.0));
        // Too few to say: the whole range.
        assert_eq!(interval(3), of(2.0, 1.0, 3.0));
        assert_eq!(interval(0), None);
    }
}
