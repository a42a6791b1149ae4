//! What the documents of an image archive say: which layers, in which order, and the configuration.
//! `docker save`'s `manifest.json` and the OCI image layout 1.1 are read; both may be in one archive.

use std::collections::BTreeMap;
use std::path::PathBuf;

use garth_spec::ImageConfig;
use serde::Deserialize;

use super::Format;
use super::spool::{Blob, Spool, is_digest};
use crate::error::{Error, ErrorKind};

/// Layers from the lowest to the highest, and what the image says of processes.
pub(super) struct Contents {
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Layer>,
}

/// One layer.
pub(super) struct Layer {
    /// As the image names it.
    pub(super) name: String,
    pub(super) file: PathBuf,
    /// SHA-256 of the layer without its compression, in hexadecimal.
    pub(super) diff_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    layers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Clone)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<Config>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

/// Images of images of images: more is an attack.
const DEEPEST_INDEX: usize = 3;

impl Contents {
    /// Reads what the archive holds; every document and layer that an OCI digest names is checked against it.
    pub(super) fn read(spool: &Spool<'_>, format: Format) -> Result<Self, Error> {
        let docker = spool.blob("manifest.json").is_some();
        let oci = spool.blob("index.json").is_some();
        match (format, docker, oci) {
            (Format::DockerArchive | Format::Auto, true, _) => from_docker(spool),
            (Format::OciLayout | Format::Auto, _, true) => from_oci(spool),
            _ => Err(Error::new(ErrorKind::UnknownFormat("it has no manifest.json and no index.json".to_owned()))),
        }
    }
}

fn from_docker(spool: &Spool<'_>) -> Result<Contents, Error> {
    let manifests: Vec<DockerManifest> = spool.document("manifest.json")?.unwrap_or_default();
    let [manifest] = manifests.as_slice() else {
        return Err(Error::new(ErrorKind::SeveralImages(manifests.len())));
    };
    let config: ConfigFile = spool.document(&manifest.config)?.ok_or_else(|| missing(&manifest.config))?;
    if let (Some(digest), Some(blob)) = (digest_in(&manifest.config), spool.blob(&manifest.config)) {
        check_digest(blob, digest, &manifest.config)?;
    }
    let blob = |name: &String| Ok((name.clone(), spool.blob(name).ok_or_else(|| missing(name))?));
    let layers = manifest.layers.iter().map(blob).collect::<Result<Vec<_>, Error>>()?;
    contents(config, layers)
}

fn from_oci(spool: &Spool<'_>) -> Result<Contents, Error> {
    let mut index: Index = spool.document("index.json")?.ok_or_else(|| missing("index.json"))?;
    for _ in 0..DEEPEST_INDEX {
        let descriptor = choose(index.manifests)?;
        if !is_index(&descriptor) {
            let manifest: Manifest = read_digest(spool, &descriptor)?;
            let config: ConfigFile = read_digest(spool, &manifest.config)?;
            let layers = manifest.layers.iter().map(|layer| Ok((layer.digest.clone(), by_digest(spool, layer)?)));
            return contents(config, layers.collect::<Result<Vec<_>, Error>>()?);
        }
        index = read_digest(spool, &descriptor)?;
    }
    Err(Error::new(ErrorKind::BadDocument("index of indexes".to_owned())))
}

/// The image for this machine. What is for no machine (signatures, attestations) is no candidate.
fn choose(manifests: Vec<Descriptor>) -> Result<Descriptor, Error> {
    let machine = machine();
    let images: Vec<Descriptor> = manifests.into_iter().filter(|descriptor| !is_note(descriptor)).collect();
    let others = images.iter().filter_map(|descriptor| descriptor.platform.clone()).next();
    let mut fitting: Vec<Descriptor> = images.into_iter().filter(|descriptor| fits(descriptor, &machine)).collect();
    match (fitting.len(), others) {
        (1, _) => Ok(fitting.remove(0)),
        (0, Some(other)) => Err(other_platform(&other)),
        (count, _) => Err(Error::new(ErrorKind::SeveralImages(count))),
    }
}

fn is_note(descriptor: &Descriptor) -> bool {
    let attestation = |notes: &BTreeMap<String, String>| notes.contains_key("vnd.docker.reference.type");
    descriptor.annotations.as_ref().is_some_and(attestation)
        || descriptor.platform.as_ref().is_some_and(|platform| platform.architecture == "unknown")
}

fn fits(descriptor: &Descriptor, machine: &Platform) -> bool {
    let same = |platform: &Platform| platform.os == machine.os && platform.architecture == machine.architecture;
    descriptor.platform.as_ref().is_none_or(same)
}

fn is_index(descriptor: &Descriptor) -> bool {
    matches!(
        descriptor.media_type.as_str(),
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

/// This machine in the words of Go, which images use.
fn machine() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform { architecture: architecture.to_owned(), os: "linux".to_owned() }
}

fn contents(file: ConfigFile, layers: Vec<(String, &Blob)>) -> Result<Contents, Error> {
    let machine = machine();
    let platform = Platform { architecture: file.architecture, os: file.os };
    let named = !platform.architecture.is_empty() && !platform.os.is_empty();
    if named && (platform.architecture != machine.architecture || platform.os != machine.os) {
        return Err(other_platform(&platform));
    }
    if file.rootfs.diff_ids.len() != layers.len() {
        return Err(Error::new(ErrorKind::BadDocument("list of layers".to_owned())));
    }
    let layer = |((name, blob), diff_id): ((String, &Blob), String)| {
        let diff_id = diff_id.strip_prefix("sha256:").filter(|digest| is_digest(digest)).map(str::to_owned);
        let diff_id = diff_id.ok_or_else(|| Error::new(ErrorKind::BadDocument("list of layers".to_owned())))?;
        Ok(Layer { name, file: blob.file.clone(), diff_id })
    };
    let layers = layers.into_iter().zip(file.rootfs.diff_ids).map(layer).collect::<Result<_, Error>>()?;
    Ok(Contents { config: image_config(file.config.unwrap_or_default())?, layers })
}

fn image_config(config: Config) -> Result<ImageConfig, Error> {
    let config = ImageConfig {
        env: config.env.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        user: config.user.filter(|user| !user.is_empty()),
        workdir: config.working_dir.filter(|dir| !dir.is_empty()),
        labels: config.labels.unwrap_or_default(),
    };
    let texts =
        config.env.iter().chain(&config.entrypoint).chain(&config.cmd).chain(&config.user).chain(&config.workdir);
    let nul = texts.clone().any(|text| text.contains('\0'));
    let named = config.env.iter().all(|text| text.split_once('=').is_some_and(|(name, _)| !name.is_empty()));
    let absolute = config.workdir.as_ref().is_none_or(|dir| dir.starts_with('/'));
    if nul || !named || !absolute {
        return Err(Error::new(ErrorKind::BadDocument("configuration".to_owned())));
    }
    Ok(config)
}

fn read_digest<T: serde::de::DeserializeOwned>(spool: &Spool<'_>, descriptor: &Descriptor) -> Result<T, Error> {
    by_digest(spool, descriptor)?;
    spool.document(&blob_name(&descriptor.digest)?)?.ok_or_else(|| missing(&descriptor.digest))
}

fn by_digest<'a>(spool: &'a Spool<'_>, descriptor: &Descriptor) -> Result<&'a Blob, Error> {
    let blob = spool.blob(&blob_name(&descriptor.digest)?).ok_or_else(|| missing(&descriptor.digest))?;
    check_digest(blob, descriptor.digest.trim_start_matches("sha256:"), &descriptor.digest)?;
    Ok(blob)
}

fn check_digest(blob: &Blob, digest: &str, name: &str) -> Result<(), Error> {
    if blob.digest == digest {
        return Ok(());
    }
    Err(Error::new(ErrorKind::DigestMismatch(name.to_owned())))
}

fn blob_name(digest: &str) -> Result<String, Error> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if is_digest(hex) => Ok(format!("blobs/sha256/{hex}")),
        _ => Err(Error::new(ErrorKind::BadDocument(format!("digest {digest:?}")))),
    }
}

/// The digest that a file of `docker save` is named by: `HEX.json`, `sha256:HEX`, `blobs/sha256/HEX`.
fn digest_in(name: &str) -> Option<&str> {
    let last = name.rsplit('/').next()?;
    let stem = last.strip_suffix(".json").unwrap_or(last);
    let stem = stem.strip_prefix("sha256:").unwrap_or(stem);
    is_digest(stem).then_some(stem)
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::BadDocument(format!("blob {name:?}, which is missing,")))
}

fn other_platform(platform: &Platform) -> Error {
    let shown = |platform: &Platform| format!("{}/{}", platform.os, platform.architecture);
    Error::new(ErrorKind::OtherPlatform { image: shown(platform), machine: shown(&machine()) })
}
