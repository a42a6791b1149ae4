use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a sandbox is isolated. Asked for by the user, never weakened. Weaker comes before stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Linux namespaces and cgroups on the shared kernel.
    #[default]
    Default,
    /// User-namespace remapping, virtual /proc and /sys, on the shared kernel.
    Sysbox,
    /// A kernel of its own in a virtual machine.
    Microvm,
}

/// What carries a runtime out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Handler {
    /// `default/native`: our own code.
    #[serde(rename = "default/native")]
    DefaultNative,
    /// `sysbox/native`: our own code, with user namespaces.
    #[serde(rename = "sysbox/native")]
    SysboxNative,
}

/// A runtime that Garth does not know or cannot carry out in this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown runtime {0:?}: use default, sysbox or microvm")]
pub struct UnknownRuntime(String);

impl FromStr for Runtime {
    type Err = UnknownRuntime;

    fn from_str(text: &str) -> Result<Self, UnknownRuntime> {
        match text {
            "default" | "default/native" => Ok(Self::Default),
            "sysbox" | "sysbox/native" => Ok(Self::Sysbox),
            "microvm" => Ok(Self::Microvm),
            _ => Err(UnknownRuntime(text.to_owned())),
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Sysbox => "sysbox",
            Self::Microvm => "microvm",
        })
    }
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DefaultNative => "default/native",
            Self::SysboxNative => "sysbox/native",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stronger_runtime_is_greater() {
        assert!(Runtime::Default < Runtime::Sysbox && Runtime::Sysbox < Runtime::Microvm);
    }
}
