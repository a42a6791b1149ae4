use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A capability (capabilities(7)), or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Capability {
    /// All that a level has.
    All,
    /// The one of this number.
    One(u8),
}

/// By number, as in linux/capability.h.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A name that no capability has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no capability {0:?}; see capabilities(7)")]
pub struct UnknownCapability(String);

impl FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(text: &str) -> Result<Self, UnknownCapability> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            return Ok(Self::All);
        }
        let number = NAMES.iter().position(|known| *known == name).and_then(|number| u8::try_from(number).ok());
        number.map(Self::One).ok_or_else(|| UnknownCapability(text.to_owned()))
    }
}

impl TryFrom<String> for Capability {
    type Error = UnknownCapability;

    fn try_from(text: String) -> Result<Self, UnknownCapability> {
        text.parse()
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.to_string()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("ALL"),
            Self::One(number) => match NAMES.get(usize::from(*number)) {
                Some(name) => f.write_str(name),
                None => write!(f, "{number}"),
            },
        }
    }
}

impl Capability {
    fn bits(self) -> u64 {
        match self {
            Self::All => u64::MAX,
            Self::One(number) => 1u64.checked_shl(number.into()).unwrap_or(0),
        }
    }
}

/// Which of its level's capabilities the processes of a sandbox can have: all, without those dropped, with those added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// Without these; `ALL` for none.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub drop: BTreeSet<Capability>,
    /// But with these, which the level has to have.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub add: BTreeSet<Capability>,
}

impl Capabilities {
    /// Whether nothing is asked for.
    pub fn are_the_levels(&self) -> bool {
        *self == Self::default()
    }

    /// The set, of a level's; or the capability that is not the level's to give.
    pub fn of(&self, level: u64) -> Result<u64, Capability> {
        let bits = |set: &BTreeSet<Capability>| set.iter().fold(0, |bits, one| bits | one.bits());
        match self.add.iter().find(|one| **one != Capability::All && one.bits() & !level != 0) {
            Some(beyond) => Err(*beyond),
            None => Ok((level & !bits(&self.drop)) | (level & bits(&self.add))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(drop: &[&str], add: &[&str], level: u64) -> Result<u64, String> {
        let set = |names: &[&str]| names.iter().map(|name| name.parse().expect("a name")).collect();
        Capabilities { drop: set(drop), add: set(add) }.of(level).map_err(|beyond| beyond.to_string())
    }

    #[test]
    fn a_level_is_never_exceeded() {
        assert_eq!(of(&[], &[], 0b1011), Ok(0b1011));
        assert_eq!(of(&["ALL"], &["cap_chown"], 0b1011), Ok(1));
        assert_eq!(of(&["FOWNER", "SYS_ADMIN"], &[], 0b1011), Ok(0b0011));
        assert_eq!(of(&["ALL"], &["ALL"], 0b1011), Ok(0b1011));
        assert_eq!(of(&[], &["SYS_ADMIN"], 0b1011), Err("SYS_ADMIN".to_owned()));
    }

    #[test]
    fn names_are_the_kernels() {
        for name in ["", "CAP_", "SYS_ROOT", "41"] {
            assert!(name.parse::<Capability>().is_err(), "{name:?}");
        }
        let read = |text: &str| serde_json::from_str::<Capability>(text).ok();
        assert_eq!(read("\"cap_sys_admin\""), Some(Capability::One(21)));
        assert_eq!(serde_json::to_string(&Capability::One(40)).ok().as_deref(), Some("\"CHECKPOINT_RESTORE\""));
    }
}
