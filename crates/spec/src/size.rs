use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A size or count that Garth does not take, and what it takes instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct InvalidSize {
    text: String,
    wanted: &'static str,
}

/// A number of bytes, above zero and below 8 EiB. As text: `512MiB`, `1.5GiB`, `2G` (binary), `10GB` (decimal) or plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "u64", into = "u64")]
pub struct ByteSize(u64);

const WANTED_SIZE: &str =
    "a size: write a number above zero with B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, K, M, G or T, as in 512MiB";

impl ByteSize {
    /// So many MiB.
    pub const fn mib(count: u32) -> Self {
        Self(count as u64 * (1 << 20))
    }

    /// So many bytes; an error when zero or 8 EiB and above.
    pub fn from_bytes(bytes: u64) -> Result<Self, InvalidSize> {
        if bytes == 0 || bytes > i64::MAX as u64 {
            return Err(InvalidSize { text: bytes.to_string(), wanted: WANTED_SIZE });
        }
        Ok(Self(bytes))
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let invalid = || InvalidSize { text: text.to_owned(), wanted: WANTED_SIZE };
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(invalid()),
        };
        let bytes = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(factor).ok_or_else(invalid)?,
            Err(_) => fraction(number, factor).ok_or_else(invalid)?,
        };
        Self::from_bytes(bytes).map_err(|_| invalid())
    }
}

/// `1.5` of a unit, exactly, for up to nine digits after the point.
fn fraction(number: &str, factor: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.')?;
    if whole.is_empty() || part.is_empty() || part.len() > 9 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let scale = 10u128.pow(u32::try_from(part.len()).ok()?);
    let part = u128::from(part.parse::<u64>().ok()?) * u128::from(factor) / scale;
    whole.checked_add(u64::try_from(part).ok()?)
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let tenths = (value * 10.0).round() / 10.0;
        if tenths.fract() == 0.0 {
            write!(f, "{tenths:.0} {}", UNITS[unit])
        } else {
            write!(f, "{tenths:.1} {}", UNITS[unit])
        }
    }
}

impl TryFrom<u64> for ByteSize {
    type Error = InvalidSize;

    fn try_from(bytes: u64) -> Result<Self, InvalidSize> {
        Self::from_bytes(bytes)
    }
}

impl From<ByteSize> for u64 {
    fn from(size: ByteSize) -> u64 {
        size.0
    }
}

/// A number of processors in thousandths: 0.01 to 1024. As text: `2`, `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "f64", into = "f64")]
pub struct CpuCount(u32);

impl CpuCount {
    /// Thousandths of a processor.
    pub const fn millis(self) -> u32 {
        self.0
    }

    fn from_count(count: f64) -> Option<Self> {
        let millis = (count * 1000.0).round();
        (10.0..=1_024_000.0).contains(&millis).then_some(Self(millis as u32))
    }
}

const WANTED_CPUS: &str = "a number of CPUs between 0.01 and 1024, as in 2 or 0.5";

impl FromStr for CpuCount {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
        plain
            .then(|| text.parse().ok().and_then(Self::from_count))
            .flatten()
            .ok_or_else(|| InvalidSize { text: text.to_owned(), wanted: WANTED_CPUS })
    }
}

impl fmt::Display for CpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

impl TryFrom<f64> for CpuCount {
    type Error = InvalidSize;

    fn try_from(count: f64) -> Result<Self, InvalidSize> {
        Self::from_count(count).ok_or_else(|| InvalidSize { text: count.to_string(), wanted: WANTED_CPUS })
    }
}

impl From<CpuCount> for f64 {
    fn from(count: CpuCount) -> f64 {
        f64::from(count.0) / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly() {
        for (text, bytes) in [
            ("1", 1),
            ("512MiB", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("2g", 2 << 30),
            ("10GB", 10_000_000_000),
            ("1K", 1024),
        ] {
            assert_eq!(text.parse::<ByteSize>().map(ByteSize::bytes), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_mean_nothing_are_refused() {
        for text in
            ["", "0", "-1", "1e99", "10XiB", "MiB", "1..5G", ".5G", "5.G", "9999999999999T", "nan", " 1M", "+1M"]
        {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        for (bytes, text) in [(1, "1 B"), (1024, "1 KiB"), (512 << 20, "512 MiB"), (3 << 29, "1.5 GiB")] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn cpu_counts_are_thousandths() {
        assert_eq!("0.5".parse::<CpuCount>().map(CpuCount::millis), Ok(500));
        assert_eq!("2".parse::<CpuCount>().map(|c| c.to_string()), Ok("2".to_owned()));
        for text in ["0", "-1", "1e3", "nan", "inf", "", "2000"] {
            assert!(text.parse::<CpuCount>().is_err(), "{text}");
        }
    }
}
