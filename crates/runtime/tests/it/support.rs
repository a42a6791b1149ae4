use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use garth_runtime::{
    AgentBinary, Container, OciRuntime, Overlay, Root, Sandbox, SandboxPlan, Sandboxes, SandboxesConfig,
};
use garth_spec::SandboxId;
use serde::Deserialize;

/// A directory with a disk and all a test's sandboxes; everything goes when it is dropped.
pub struct Yard {
    sandboxes: Option<Sandboxes>,
    pub dir: tempfile::TempDir,
    pub tag: String,
}

/// What a command did.
#[derive(Debug, Deserialize)]
pub struct Reply {
    pub code: i32,
    pub out: String,
    pub err: String,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

pub fn fresh_id() -> SandboxId {
    SandboxId::from_bits(u64::from(std::process::id()) << 32 | NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Says that a test cannot run here; tests end at that.
pub fn skip(test: &str, missing: &str) {
    eprintln!("SKIP {test}: {missing}");
}

/// A yard, or `None` (said loudly) where sandboxes cannot run.
#[macro_export]
macro_rules! yard {
    () => {
        match $crate::support::Yard::new() {
            Ok(yard) => yard,
            Err(missing) => return $crate::support::skip(module_path!(), &missing),
        }
    };
}

impl Yard {
    pub fn new() -> Result<Self, String> {
        if let Some(finding) =
            garth_runtime::probe(garth_runtime::Level::Default).into_iter().find(|finding| !finding.ok)
        {
            return Err(format!("{}: {}", finding.name, finding.detail));
        }
        let dir = tempfile::tempdir().expect("temp dir");
        make_disk(&dir.path().join("disk"));
        for name in ["state", "upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).expect("dir");
        }
        std::fs::write(dir.path().join("secret"), "of the host").expect("secret");
        let tag = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut yard = Self { sandboxes: None, dir, tag };
        yard.open();
        Ok(yard)
    }

    /// Opens the sandboxes, as a daemon does when it starts.
    pub fn open(&mut self) {
        let init = std::env::current_exe()
            .expect("own path")
            .ancestors()
            .nth(2)
            .expect("profile dir")
            .join("examples/tiny_init");
        let bytes = std::fs::read(&init).expect("tiny_init is built: cargo build -p garth-runtime --examples");
        let config = SandboxesConfig {
            run_dir: self.dir.path().join("run"),
            tag: self.tag.clone(),
            agent: AgentBinary::from_bytes(&bytes).expect("memfd"),
            oci: OciRuntime { program: "runc".into(), sockets: Vec::new() },
        };
        self.sandboxes = Some(Sandboxes::open(config).expect("sandboxes"));
    }

    /// Closes them, as a daemon that ends.
    pub fn close(&mut self) {
        self.sandboxes = None;
    }

    pub fn sandboxes(&self) -> &Sandboxes {
        self.sandboxes.as_ref().expect("open")
    }

    pub fn disk(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    pub fn plan(&self) -> SandboxPlan {
        let path = |name: &str| self.dir.path().join(name);
        let mut plan = SandboxPlan::new("yard", Root::Directory(self.disk()), path("state"));
        plan.usr = Some(Overlay { lower: "/usr".into(), upper: path("upper"), work: path("work") });
        plan
    }

    /// Starts a sandbox by the machine's `runc`, in place of Sysbox.
    pub fn start_container(&self, id: SandboxId, plan: &SandboxPlan) -> Container {
        let prepared = self.sandboxes().prepare_container().unwrap_or_else(|e| panic!("prepare: {}", chain(&e)));
        prepared.start(id, plan).unwrap_or_else(|e| panic!("start: {}", chain(&e)))
    }

    pub fn start(&self) -> Sandbox {
        self.start_with(&self.plan())
    }

    pub fn start_with(&self, plan: &SandboxPlan) -> Sandbox {
        self.sandboxes().start(fresh_id(), plan, None).unwrap_or_else(|e| panic!("start: {}", chain(&e)))
    }
}

impl Drop for Yard {
    /// A test that failed half-way left its sandbox running.
    fn drop(&mut self) {
        self.close();
        if std::thread::panicking() {
            self.open();
            let _ = self.sandboxes().sweep(&[]);
            self.close();
        }
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub fn make_disk(disk: &Path) {
    for name in ["etc", "usr", "root", "tmp", "mnt", "var"] {
        std::fs::create_dir_all(disk.join(name)).expect("dir");
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), disk.join(name)).expect("link");
    }
    std::fs::write(disk.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("passwd");
}

/// Runs a command in a sandbox.
pub fn run(sandbox: &Sandbox, words: &[&str]) -> Reply {
    run_at(&sandbox.agent_socket(), words)
}

/// Runs a command in whatever listens there.
pub fn run_at(socket: &Path, words: &[&str]) -> Reply {
    let mut connection = UnixStream::connect(socket).expect("connect");
    let line = serde_json::to_string(words).expect("words") + "\n";
    connection.write_all(line.as_bytes()).expect("send");
    let mut reply = String::new();
    connection.read_to_string(&mut reply).expect("receive");
    serde_json::from_str(&reply).unwrap_or_else(|e| panic!("{e}: {reply:?}"))
}

/// Runs a shell script in a sandbox.
pub fn sh(sandbox: &Sandbox, script: &str) -> Reply {
    run(sandbox, &["/bin/sh", "-c", script])
}

/// Runs a Python script in a sandbox; its output.
pub fn python(sandbox: &Sandbox, script: &str) -> String {
    let reply = run(sandbox, &["/usr/bin/python3", "-c", script]);
    assert_eq!(reply.code, 0, "{script}\n{}", reply.err);
    reply.out.trim().to_owned()
}
