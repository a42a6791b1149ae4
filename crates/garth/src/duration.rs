//! Durations as flags: `500ms`, `1s`, `1.5m`, `2h`, `1d`, or plain seconds.

use std::time::Duration;

/// The longest duration a flag takes: what fits in 32 bits of milliseconds, 49 days.
const LONGEST: Duration = Duration::from_millis(u32::MAX as u64);

/// Reads a duration above zero.
pub fn parse(text: &str) -> Result<Duration, String> {
    match parse_or_zero(text) {
        Ok(Duration::ZERO) => Err("it has to be above zero".to_owned()),
        other => other,
    }
}

/// Reads a duration; zero is fine.
pub fn parse_or_zero(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err("write a number and ms, s, m, h or d, as in 500ms or 1.5h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "write a number and ms, s, m, h or d, as in 30s".to_owned())?;
    Duration::try_from_secs_f64(number * unit)
        .ok()
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| "it is longer than 49 days".to_owned())
}

/// Whole milliseconds, rounded up so that a duration above zero never becomes "no limit".
pub fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [("1s", 1000), ("500ms", 500), ("1.5m", 90_000), ("2", 2000), ("1h", 3_600_000)] {
            assert_eq!(parse(text).map(millis), Ok(ms), "{text}");
        }
        assert_eq!(parse_or_zero("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn durations_that_mean_nothing_are_refused() {
        for text in ["", "0", "0s", "-1s", "1e9s", "1w", "s", "1 s", "50d", "1..5s", "nan"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
