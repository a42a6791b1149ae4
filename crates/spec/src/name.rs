use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name of a project, in bytes: it is also a hostname label (RFC 1123: 63).
const LONGEST: usize = 63;

/// The longest name of an image: a registry's, a repository's of 255 bytes at most, a tag or a digest.
const LONGEST_IMAGE: usize = 512;

/// A name that Garth does not take, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a valid name: {why} (use 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit and not ending in '-')"
)]
pub struct InvalidName {
    name: String,
    why: &'static str,
}

fn check(text: &str, also: &[u8], longest: usize) -> Result<(), InvalidName> {
    let refuse = |why| Err(InvalidName { name: text.chars().take(80).collect(), why });
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return refuse("it is empty");
    };
    if bytes.len() > longest {
        return refuse(if longest == LONGEST {
            "it is longer than 63 characters"
        } else {
            "it is longer than 512 characters"
        });
    }
    if !text.is_ascii() {
        return refuse("it has a character outside a-z, 0-9 and '-'; look-alikes from other alphabets count");
    }
    if bytes.iter().any(u8::is_ascii_uppercase) {
        return refuse("it has an upper-case letter");
    }
    let plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !bytes.iter().all(|c| plain(c) || *c == b'-' || also.contains(c)) {
        return refuse("it has a character outside a-z, 0-9 and '-'");
    }
    if !plain(first) {
        return refuse("it does not start with a letter or digit");
    }
    if !plain(last) {
        return refuse("it does not end with a letter or digit");
    }
    // What a path would take for something else.
    if text.contains("//") || text.contains("..") {
        return refuse("it has '//' or '..'");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $also:expr, $longest:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check(text, $also, $longest).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name! {
    /// What a user calls a project: a hostname label, so that it is the sandbox's hostname too.
    ProjectName, b"", LONGEST
}
name! {
    /// What a user calls an image: as a project name, with `.`, `_`, `:`, `/` and `@` inside (`debian:12`,
    /// `registry.example/team/app:1`).
    ImageName, b"._:/@", LONGEST_IMAGE
}

impl ImageName {
    /// The built-in image: this machine's own `/usr` below a writable layer.
    pub fn host() -> Self {
        Self("host".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = text.parse::<ProjectName>().expect_err(text).to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn names_that_could_escape_or_confuse_are_refused() {
        refused("", "empty");
        refused(&"a".repeat(65), "longer than 63");
        refused("../x", "outside a-z");
        refused("a/b", "outside a-z");
        refused("раypal", "look-alikes");
        refused("Web", "upper-case");
        refused("-web", "start with");
        refused("web-", "end with");
        refused("a\0b", "outside a-z");
    }

    #[test]
    fn ordinary_names_are_taken() {
        for text in ["a", "web-1", "acc12345", &"a".repeat(63)] {
            assert!(text.parse::<ProjectName>().is_ok(), "{text}");
        }
        let digest = format!("registry.example:5000/team/app@sha256:{}", "0".repeat(64));
        for text in ["debian:12.5_slim", "localhost/app:1", &digest] {
            assert!(text.parse::<ImageName>().is_ok(), "{text}");
        }
        for text in ["/etc/x", "a//b", "a/../b", "a/", &"a".repeat(513)] {
            assert!(text.parse::<ImageName>().is_err(), "{text}");
        }
    }
}
