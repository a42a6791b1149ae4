use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use garth_api::ErrorCode;

use super::Kept;
use crate::failure::Failure;

/// Where keys are kept.
#[derive(Debug)]
pub(crate) enum KeyStore {
    /// In a file of root's, beside the daemon's socket.
    File(PathBuf),
    /// In a Secret of the cluster, which all gateways share.
    Cluster(garth_cluster::engine::Engine),
}

impl KeyStore {
    pub(super) async fn read(&self) -> Result<Vec<Kept>, Failure> {
        match self {
            Self::File(path) => parse(read_file(path).map_err(|error| failed(&error))?.as_deref()),
            Self::Cluster(engine) => parse(engine.keys().await?.1.as_deref()),
        }
    }

    /// Changes them all at once: what was there before is there until the new is safe.
    pub(super) async fn change(&self, change: impl Fn(&mut Vec<Kept>) -> Result<(), Failure>) -> Result<(), Failure> {
        match self {
            Self::File(path) => {
                let mut keys = self.read().await?;
                change(&mut keys)?;
                write_file(path, &serde_json::to_vec(&keys).map_err(|error| failed(&error))?)
                    .map_err(|error| failed(&error))
            }
            Self::Cluster(engine) => loop {
                let (version, text) = engine.keys().await?;
                let mut keys = parse(text.as_deref())?;
                change(&mut keys)?;
                let text = serde_json::to_vec(&keys).map_err(|error| failed(&error))?;
                // Another gateway may have been quicker.
                if engine.set_keys(version, text).await? {
                    return Ok(());
                }
            },
        }
    }
}

fn parse(text: Option<&[u8]>) -> Result<Vec<Kept>, Failure> {
    text.map_or(Ok(Vec::new()), |text| serde_json::from_slice(text).map_err(|error| failed(&error)))
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(ErrorCode::StoreFailed, "the keys cannot be used").because(error)
}

fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
