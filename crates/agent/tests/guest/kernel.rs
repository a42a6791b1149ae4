//! Debian's kernel, and first files for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Loaded in this order; those that a kernel has built in are not in its package.
const MODULES: [&str; 11] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "overlay",
    "failover",
    "net_failover",
    "virtio_net",
];

/// A kernel and where its modules are.
pub struct Kernel {
    pub image: PathBuf,
    modules: PathBuf,
}

/// Fetched once, with the host's own package manager; beside the test programs, so that it goes with `cargo clean`.
pub fn kernel() -> Option<Kernel> {
    // By one test; the others wait.
    static FETCHING: Mutex<()> = Mutex::new(());
    let _alone = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-kernel");
    if !cache.exists() {
        let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("work");
        let script = "package=$(apt-cache depends --important linux-image-cloud-amd64 | sed -n 's/ *Depends: //p' | head -1) && \
                      apt-get -q download \"$package\" && dpkg -x ./*.deb kernel";
        let fetched = Command::new("sh").args(["-c", script]).current_dir(work.path()).output().expect("sh");
        if !fetched.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&fetched.stderr));
            return None;
        }
        std::fs::rename(work.path().join("kernel"), &cache).expect("keep");
    }
    let named = |dir: &Path, start: &str| {
        let entries = std::fs::read_dir(dir).ok()?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)))
    };
    let modules = ["lib/modules", "usr/lib/modules"].iter().find_map(|dir| named(&cache.join(dir), ""));
    Some(Kernel { image: named(&cache.join("boot"), "vmlinuz-")?, modules: modules? })
}

impl Kernel {
    /// What the kernel unpacks: the agent as `/init`, a console, the modules.
    pub fn first_files(&self) -> Vec<u8> {
        let mut archive = Archive::default();
        archive.add("dev", 0o040755, (0, 0), b"");
        archive.add("dev/console", 0o020600, (5, 1), b"");
        archive.add("init", 0o100755, (0, 0), garth_agent_binary::AGENT);
        archive.add("modules", 0o040755, (0, 0), b"");
        for (number, name) in MODULES.iter().enumerate() {
            if let Some(bytes) = self.module(name) {
                archive.add(&format!("modules/{number:02}-{name}.ko"), 0o100644, (0, 0), &bytes);
            }
        }
        archive.add("modules/99-broken.ko", 0o100644, (0, 0), b"no module");
        archive.finish()
    }

    fn module(&self, name: &str) -> Option<Vec<u8>> {
        let found =
            Command::new("find").arg(&self.modules).args(["-name", &format!("{name}.ko*")]).output().expect("find");
        let path = String::from_utf8(found.stdout).expect("a path").lines().next()?.to_owned();
        let unpack = if path.ends_with(".xz") { "xz" } else { "cat" };
        let args: &[&str] = if unpack == "xz" { &["-dc"] } else { &[] };
        Some(Command::new(unpack).args(args).arg(path).output().expect("unpack").stdout)
    }
}

/// cpio, the form `newc`.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let size = u32::try_from(content.len()).expect("small");
        let length = name.len() as u32 + 1;
        let fields = [self.0.len() as u32, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, length, 0];
        self.0.extend(b"070701");
        self.0.extend(fields.iter().flat_map(|field| format!("{field:08X}").into_bytes()));
        self.0.extend(name.bytes().chain([0]));
        self.align();
        self.0.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, (0, 0), b"");
        self.0
    }
}
