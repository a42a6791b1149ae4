//! Values that are text on the wire.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not {0}")]
pub struct InvalidText(&'static str);

/// So many bytes; two lower-case digits each as text. Its debug form does not tell them: some are secret.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex<const N: usize>(pub [u8; N]);

/// A hardware address, `02:00:00:00:00:01` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

/// An address of an interface and how much of it names its network, `10.0.0.2/24` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String", bound = "A: Bits")]
pub struct Prefixed<A> {
    /// The address.
    pub address: A,
    /// At most as many as the address has bits.
    pub prefix: u8,
}

/// Addresses of one family.
pub trait Bits: FromStr + fmt::Display + Clone {
    /// How many bits one has.
    const BITS: u8;
}

impl Bits for Ipv4Addr {
    const BITS: u8 = 32;
}

impl Bits for Ipv6Addr {
    const BITS: u8 = 128;
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }
}

impl<const N: usize> From<Hex<N>> for String {
    fn from(hex: Hex<N>) -> Self {
        hex.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        let invalid = InvalidText("so many bytes as hexadecimal digits");
        if text.len() != 2 * N || !text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid);
        }
        let mut bytes = [0; N];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| invalid)?;
        }
        Ok(Self(bytes))
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.0.map(|byte| format!("{byte:02x}")).join(":")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|pair| (pair.len() == 2).then(|| u8::from_str_radix(pair, 16).ok()).flatten())
            .collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(InvalidText("a hardware address"))
    }
}

impl<A: Bits> From<Prefixed<A>> for String {
    fn from(prefixed: Prefixed<A>) -> Self {
        format!("{}/{}", prefixed.address, prefixed.prefix)
    }
}

impl<A: Bits> TryFrom<String> for Prefixed<A> {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        let invalid = InvalidText("an address with the length of its prefix");
        let (address, prefix) = text.split_once('/').ok_or(invalid)?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= A::BITS).ok_or(invalid)?;
        Ok(Self { address: address.parse().map_err(|_| invalid)?, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T>(text: &str, valid: bool)
    where
        T: TryFrom<String, Error = InvalidText> + Into<String>,
    {
        let parsed = T::try_from(text.to_owned()).map(Into::into);
        assert_eq!(parsed.ok().as_deref(), valid.then_some(text), "{text}");
    }

    #[test]
    fn texts_come_back_as_they_were_or_are_refused() {
        check::<Hex<2>>("00ff", true);
        for text in ["00f", "00fff", "00FF", "0x0f", "+1+2", ""] {
            check::<Hex<2>>(text, false);
        }
        check::<MacAddress>("02:00:00:00:0a:ff", true);
        for text in ["02:00:00:00:0a", "02:00:00:00:0a:ff:01", "2:0:0:0:a:ff", "02-00-00-00-0a-ff", ""] {
            check::<MacAddress>(text, false);
        }
        check::<Prefixed<Ipv4Addr>>("10.0.0.2/24", true);
        check::<Prefixed<Ipv6Addr>>("fd00::2/128", true);
        for text in ["10.0.0.2", "10.0.0.2/33", "10.0.0.2/-1", "10.0.0/8", "fd00::2/64"] {
            check::<Prefixed<Ipv4Addr>>(text, false);
        }
    }

    #[test]
    fn secret_bytes_are_not_shown() {
        assert_eq!(format!("{:?}", Hex([7; 64])), "64 bytes");
    }
}
