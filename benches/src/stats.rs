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

    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn quantiles(&self) -> Option<Quantiles> {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = |q: f64| {
            let index = ((times.len() as f64 * q).ceil() as usize).max(1) - 1;
            times.get(index).map(|t| t.as_secs_f64() * 1e3)
        };
        Some(Quantiles { p50_ms: at(0.50)?, p95_ms: at(0.95)?, p99_ms: at(0.99)? })
    }
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
}
