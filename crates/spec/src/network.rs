use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a sandbox can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Loopback only.
    None,
    /// The public internet, and nothing private: not the host, not private, shared (100.64/10),
    /// link-local or metadata addresses, not other sandboxes.
    #[default]
    Internet,
}

/// A network that is neither `none` nor `internet`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown network {0:?}: use none or internet")]
pub struct UnknownNetwork(String);

impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(text: &str) -> Result<Self, UnknownNetwork> {
        match text {
            "none" => Ok(Self::None),
            "internet" => Ok(Self::Internet),
            _ => Err(UnknownNetwork(text.to_owned())),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Internet => "internet",
        })
    }
}
