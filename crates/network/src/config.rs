use std::net::SocketAddr;
use std::path::PathBuf;

use crate::{Error, ErrorKind};

/// What a [`crate::Network`] needs to know.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Holds `network.json`: the subnet, kept so that it stays the same over restarts.
    pub data_dir: PathBuf,
    /// Names everything made in the kernel; 1 to 6 lower-case letters and digits, unique among the
    /// data directories of this host.
    pub tag: String,
    /// The resolvers that questions are forwarded to; `None` means those of `/etc/resolv.conf`,
    /// read again whenever it changes.
    pub upstream: Option<Vec<SocketAddr>>,
    /// How many leases are kept ready after the first one was asked for.
    pub warm: usize,
}

impl NetworkConfig {
    /// The usual settings.
    pub fn new(data_dir: impl Into<PathBuf>, tag: impl Into<String>) -> Self {
        Self { data_dir: data_dir.into(), tag: tag.into(), upstream: None, warm: 8 }
    }
}

/// The names of what one daemon makes in the kernel.
///
/// The dash keeps `gvab-*` of tag `ab` apart from `gvabc-*` of tag `abc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    tag: String,
}

/// Every sandbox wire of every daemon begins with this.
pub(crate) const ANY_WIRE: &str = "gv";

/// Every gateway interface of every daemon begins with this.
pub(crate) const ANY_GATEWAY: &str = "garth-";

impl Names {
    pub(crate) fn new(tag: &str) -> Result<Self, Error> {
        let fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        if tag.is_empty() || tag.len() > 6 || !tag.bytes().all(fine) {
            let message = format!("a network tag is 1 to 6 lower-case letters and digits, not {tag:?}");
            return Err(Error::new(ErrorKind::InvalidTag, message));
        }
        Ok(Self { tag: tag.to_owned() })
    }

    pub(crate) fn gateway(&self) -> String {
        format!("{ANY_GATEWAY}{}", self.tag)
    }

    pub(crate) fn table(&self) -> String {
        format!("garth_{}", self.tag)
    }

    pub(crate) fn wire_prefix(&self) -> String {
        format!("{ANY_WIRE}{}-", self.tag)
    }

    /// At most 2 + 6 + 1 + 3 = 12 of the 15 bytes that a name may have.
    pub(crate) fn wire(&self, slot: u16) -> String {
        format!("{}{slot:03x}", self.wire_prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_an_interface_and_do_not_run_into_each_other() {
        let names = Names::new("abcdef").unwrap();
        assert_eq!(names.wire(0xfff), "gvabcdef-fff");
        assert!(names.gateway().len() <= 15);
        assert!(!Names::new("abc").unwrap().wire(1).starts_with(&Names::new("ab").unwrap().wire_prefix()));
    }

    #[test]
    fn a_tag_that_could_reach_into_the_ruleset_is_refused() {
        for tag in ["", "abcdefg", "A", "a b", "a}", "ä", "a\"", "a/b", "a-b"] {
            assert_eq!(Names::new(tag).map_err(|e| e.kind()), Err(ErrorKind::InvalidTag), "{tag}");
        }
    }
}
