use std::fmt;
use std::str::FromStr;

use garth_spec::{ImageConfig, ImageId, ImageName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An image as `GET /v1/images/{name}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// What users call it.
    pub name: ImageName,
    /// Its content on disk; none for the built-in image before its first use.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub id: Option<ImageId>,
    /// Where it came from.
    pub source: ImageSource,
    /// What it says of the processes to run in it.
    pub config: ImageConfig,
    /// Bytes of its files, as far as known.
    pub size: Option<u64>,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub created_at: Option<Timestamp>,
    /// How many projects began as it and still are.
    pub projects: u64,
}

/// All images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageList {
    /// By name.
    pub images: Vec<Image>,
}

/// Where an image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ImageSource {
    /// This machine's own `/usr`.
    Builtin,
    /// `garth image import`.
    Imported,
}

/// What the body of an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ImageFormat {
    /// Found out from the first entries.
    #[default]
    Auto,
    /// A root filesystem.
    Tar,
    /// `docker save`.
    DockerArchive,
    /// An OCI layout directory.
    OciLayout,
}

/// A format that is none of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown image format {0:?}: use auto, tar, docker-archive or oci-layout")]
pub struct UnknownImageFormat(String);

impl FromStr for ImageFormat {
    type Err = UnknownImageFormat;

    fn from_str(text: &str) -> Result<Self, UnknownImageFormat> {
        match text {
            "auto" => Ok(Self::Auto),
            "tar" => Ok(Self::Tar),
            "docker-archive" => Ok(Self::DockerArchive),
            "oci-layout" => Ok(Self::OciLayout),
            _ => Err(UnknownImageFormat(text.to_owned())),
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Tar => "tar",
            Self::DockerArchive => "docker-archive",
            Self::OciLayout => "oci-layout",
        })
    }
}
