use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An id that is not 16 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is 16 lower-case hexadecimal digits, not {0:?}")]
pub struct InvalidId(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(u64);

        impl $name {
            /// The id made of these 64 bits; the caller takes them from the kernel's random source.
            pub const fn from_bits(bits: u64) -> Self {
                Self(bits)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
                if text.len() != 16 || !text.bytes().all(hex) {
                    return Err(InvalidId(text.to_owned()));
                }
                u64::from_str_radix(text, 16).map(Self).map_err(|_| InvalidId(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

id! {
    /// Identifies a project for its whole life; never reused, and safe as a file name.
    ProjectId
}
id! {
    /// Identifies one incarnation of a project, from start to stop.
    SandboxId
}
id! {
    /// Identifies an imported image's content on disk.
    ImageId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_text() {
        let id = ProjectId::from_bits(0x00ab_cdef_0123_4567);
        assert_eq!(id.to_string(), "00abcdef01234567");
        assert_eq!(id.to_string().parse::<ProjectId>(), Ok(id));
    }

    #[test]
    fn ids_that_could_name_another_file_are_refused() {
        for text in ["", "..", "../../etc/passwd", "00ABCDEF01234567", "+0abcdef01234567", "0123456789abcdef0"] {
            assert!(text.parse::<ProjectId>().is_err(), "{text}");
        }
    }
}
