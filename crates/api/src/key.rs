use std::fmt;
use std::str::FromStr;

use garth_spec::ProjectName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the bearer of a key may do. Each may do what the one before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at projects, and at nothing inside them.
    Viewer,
    /// Make, use, change and delete projects.
    #[default]
    User,
    /// Images, keys and this machine, too.
    Admin,
}

/// A role that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown role {0:?}: use viewer, user or admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let found = [Self::Viewer, Self::User, Self::Admin].into_iter().find(|role| role.to_string() == text);
        found.ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Admin => "admin",
        })
    }
}

/// A key as everybody may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What it is revoked by; the part of the key before its secret.
    pub id: String,
    /// What it is for, in its maker's words.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// With which projects; all when empty.
    pub projects: Vec<ProjectName>,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
}

/// `POST /v1/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct CreateKey {
    /// What it is for.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// With which projects; all when empty.
    pub projects: Vec<ProjectName>,
}

/// A key that was just made, with what is shown this once and kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreatedKey {
    /// What stays.
    pub key: Key,
    /// What the bearer shows, as `Authorization: Bearer …`.
    pub secret: String,
}

/// Every key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KeyList {
    /// The oldest first.
    pub keys: Vec<Key>,
}
