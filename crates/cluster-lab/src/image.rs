//! Images for Pods, made here: there is no registry. Pods must ask for them with `imagePullPolicy: Never`.

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::Lab;
use crate::place::{output, run};

/// The image that every node has: busybox, which sleeps until it is told to end.
pub const BUSYBOX: &str = "localhost/busybox:lab";

/// What holds the namespaces of a Pod.
pub const PAUSE: &str = "localhost/pause:lab";

/// One to be imported.
#[derive(Debug)]
pub struct Image {
    name: String,
    content: Content,
    entrypoint: Vec<String>,
    env: Vec<String>,
}

#[derive(Debug)]
enum Content {
    Directory(PathBuf),
    // The program, and whether its applets have names.
    Busybox { program: PathBuf, applets: Vec<String> },
}

impl Image {
    /// All that is in a directory, by a full name such as `localhost/web:1`.
    pub fn of_directory(name: &str, root: &Path) -> Self {
        Self::new(name, Content::Directory(root.to_owned()), &[])
    }

    /// The same by another full name.
    pub fn called(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// What runs when a Pod says nothing else.
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The image that every node has, of the built programs in this folder.
    pub fn busybox(bin: &Path) -> Result<Self> {
        let program = bin.join("busybox");
        let applets = output(Command::new(&program).arg("--list"))?.lines().map(str::to_owned).collect();
        let until_told = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"];
        Ok(Self::new(BUSYBOX, Content::Busybox { program, applets }, &until_told))
    }

    pub(crate) fn pause(bin: &Path) -> Self {
        let content = Content::Busybox { program: bin.join("busybox"), applets: Vec::new() };
        Self::new(PAUSE, content, &["/bin/busybox", "sleep", "infinity"])
    }

    fn new(name: &str, content: Content, entrypoint: &[&str]) -> Self {
        let env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        Self { name: name.to_owned(), content, entrypoint: Vec::new(), env }.entrypoint(entrypoint)
    }

    /// Writes a docker-archive of it.
    pub fn save(&self, archive: &Path) -> Result<()> {
        let layer = archive.with_extension("layer");
        self.write_archive(&mut create(archive)?, &mut create(&layer)?).with_context(|| self.name.clone())?;
        fs::remove_file(layer).context("a layer")
    }

    /// Its only layer.
    fn write_layer(&self, to: impl Write) -> Result<()> {
        let mut layer = tar::Builder::new(to);
        layer.follow_symlinks(false);
        match &self.content {
            Content::Directory(root) => {
                layer.append_dir_all(".", root).with_context(|| root.display().to_string())?;
            }
            Content::Busybox { program, applets } => {
                for (folder, mode) in [("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777)] {
                    let mut header = header(tar::EntryType::Directory, mode);
                    layer.append_data(&mut header, folder, std::io::empty())?;
                }
                layer.append_path_with_name(program, "bin/busybox")?;
                for applet in applets.iter().filter(|applet| *applet != "busybox") {
                    layer.append_link(
                        &mut header(tar::EntryType::Symlink, 0o777),
                        format!("bin/{applet}"),
                        "busybox",
                    )?;
                }
                append(&mut layer, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")?;
            }
        }
        layer.finish().context("a layer")
    }

    /// A docker-archive.
    fn write_archive(&self, to: &mut File, layer: &mut File) -> Result<()> {
        let mut digested = Digested { to: layer, digest: Sha256::new() };
        self.write_layer(&mut digested)?;
        let Digested { to: layer, digest } = digested;
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": self.env },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        });
        let manifest = json!([{ "Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"] }]);
        let mut archive = tar::Builder::new(to);
        append(&mut archive, "manifest.json", manifest.to_string().as_bytes())?;
        append(&mut archive, "config.json", config.to_string().as_bytes())?;
        layer.rewind()?;
        archive.append_file("layer.tar", layer)?;
        archive.finish().context("an archive")
    }
}

impl Lab {
    /// Gives the node an image.
    pub fn import(&self, image: &Image) -> Result<()> {
        let archive = self.state().join("image.tar");
        image.save(&archive)?;
        self.import_archive(&archive)?;
        fs::remove_file(archive).context("an archive")
    }

    /// Gives the node the images of a docker-archive or an OCI archive.
    pub fn import_archive(&self, archive: &Path) -> Result<()> {
        let input = File::open(archive).with_context(|| archive.display().to_string())?;
        run(self.ctr(&["images", "import", "--all-platforms", "-"]).stdin(input))
    }
}

fn create(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).open(path)
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    // Garth's own import takes no number that is left blank.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(archive: &mut tar::Builder<impl Write>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = header(tar::EntryType::Regular, 0o644);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).with_context(|| path.to_owned())
}

/// What is written, and its digest.
struct Digested<'a> {
    to: &'a mut File,
    digest: Sha256,
}

impl Write for Digested<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}
