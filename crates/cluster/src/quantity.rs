//! Kubernetes quantities (`apimachinery/pkg/api/resource`): numbers with a decimal or binary suffix.

use garth_spec::{ByteSize, CpuCount};

/// What a quantity stands for; none of a text that is no quantity. Exact up to 2^53.
fn number(text: &str) -> Option<f64> {
    let at = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (digits, suffix) = text.split_at(at);
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        // An exponent, such as 1e3.
        _ => return text.parse().ok(),
    };
    Some(digits.parse::<f64>().ok()? * factor)
}

/// Bytes, rounded up.
pub(crate) fn bytes(text: &str) -> Option<ByteSize> {
    let number = number(text)?.ceil();
    let whole = number.is_finite() && (1.0..=9.0e18).contains(&number);
    whole.then(|| ByteSize::from_bytes(number as u64).ok()).flatten()
}

/// Processors.
pub(crate) fn cpus(text: &str) -> Option<CpuCount> {
    CpuCount::try_from(number(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        let bytes = |text| bytes(text).map(|size| size.bytes());
        for (text, expected) in [
            ("2Gi", 2 << 30),
            ("1.5Ki", 1536),
            ("500", 500),
            ("1e3", 1000),
            ("1E3", 1000),
            ("100M", 100_000_000),
            ("1500m", 2),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", "Gi", "2 Gi", "-1", "1Zi", "nan", "inf"] {
            assert_eq!(bytes(text), None, "{text}");
        }
        assert_eq!(cpus("500m").map(f64::from), Some(0.5));
        assert_eq!(cpus("2").map(f64::from), Some(2.0));
    }
}
