//! Whether an OCI runtime is here, alive, and able to do what our bundles ask for.
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::OciRuntime;
use crate::Finding;
use crate::probe::finding;

/// What `features` says (OCI runtime spec 1.1, features.md), as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Features {
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<String>,
}

/// Namespaces that our bundles have.
const NAMESPACES: [&str; 7] = ["user", "mount", "pid", "network", "ipc", "uts", "cgroup"];

impl OciRuntime {
    /// What is there and what is missing. Changes nothing.
    pub fn probe(&self) -> Vec<Finding> {
        let install = "install Sysbox 0.7.0 or later and start its service";
        let program = self.found();
        let mut findings = vec![finding("program", program.clone().map(|path| path.display().to_string()), install)];
        for socket in &self.sockets {
            let alive = UnixStream::connect(socket);
            let alive = alive.map(|_| format!("{} answers", socket.display()));
            let alive = alive.map_err(|e| format!("nobody answers at {}: {e}", socket.display()));
            findings.push(finding("daemon", alive, "systemctl start sysbox"));
        }
        if let Ok(program) = &program {
            let features = features(program).and_then(|features| check(&features));
            findings.push(finding("features", features, install));
        }
        findings
    }

    /// Where the program is.
    fn found(&self) -> Result<PathBuf, String> {
        let at = |path: PathBuf| path.is_file().then_some(path);
        let found = match self.program.components().count() {
            1 => std::env::var_os("PATH")
                .and_then(|path| std::env::split_paths(&path).find_map(|dir| at(dir.join(&self.program)))),
            _ => at(self.program.clone()),
        };
        found.ok_or_else(|| format!("there is no {} in PATH", self.program.display()))
    }
}

fn features(program: &Path) -> Result<Features, String> {
    let said = |why: String| format!("`{} features` {why}", program.display());
    let output = Command::new(program).arg("features").stdin(Stdio::null()).output();
    let output = output.map_err(|e: io::Error| said(format!("does not run: {e}")))?;
    if !output.status.success() {
        return Err(said(format!("ends with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| said(format!("says nothing that can be read: {e}")))
}

fn check(features: &Features) -> Result<String, String> {
    let has = |name: &&str| features.linux.namespaces.iter().any(|namespace| namespace == name);
    let missing: Vec<&str> = NAMESPACES.into_iter().filter(|name| !has(name)).collect();
    match missing.is_empty() {
        true => Ok("all namespaces that are needed".to_owned()),
        false => Err(format!("it cannot make these namespaces: {}", missing.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// A program that another test starts holds, for a moment, copies of what this one writes to or listens at: the program
    /// would be busy, the socket alive.
    fn alone() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program that says this about its features.
    fn runtime(dir: &tempfile::TempDir, features: &str) -> OciRuntime {
        let (program, socket) = (dir.path().join("sysbox-runc"), dir.path().join("sysmgr.sock"));
        std::fs::write(&program, format!("#!/bin/sh\n[ \"$1\" = features ] || exit 1\n{features}\n")).expect("write");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        OciRuntime { program, sockets: vec![socket] }
    }

    fn missing(runtime: &OciRuntime) -> Vec<String> {
        runtime.probe().into_iter().filter(|finding| !finding.ok).map(|finding| finding.detail).collect()
    }

    const ALL: &str = r#"echo '{"ociVersionMin": "1.0.0", "linux": {"namespaces":
        ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"]}}'"#;

    #[test]
    fn a_live_runtime_lacks_nothing() {
        let _alone = alone();
        let dir = tempfile::tempdir().expect("dir");
        let runtime = runtime(&dir, ALL);
        let _daemon = UnixListener::bind(&runtime.sockets[0]).expect("listen");
        assert_eq!(missing(&runtime), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let _alone = alone();
        let dir = tempfile::tempdir().expect("dir");
        let there = runtime(&dir, ALL);
        assert!(missing(&there)[0].contains("sysmgr.sock"), "{:?}", missing(&there));
        // A daemon that died leaves its socket behind.
        drop(UnixListener::bind(&there.sockets[0]).expect("listen"));
        assert!(missing(&there)[0].contains("refused"), "{:?}", missing(&there));
        let absent = OciRuntime { program: "garth-no-such-runc".into(), sockets: Vec::new() };
        assert_eq!(missing(&absent), ["there is no garth-no-such-runc in PATH"]);
    }

    #[test]
    fn a_program_that_cannot_do_it_is_refused() {
        let _alone = alone();
        for (features, says) in [
            (r#"echo '{"linux": {"namespaces": ["pid", "mount", "network", "ipc", "uts", "cgroup"]}}'"#, "user"),
            ("echo usage", "can be read"),
            ("exit 3", "exit status: 3"),
        ] {
            let dir = tempfile::tempdir().expect("dir");
            let runtime = OciRuntime { sockets: Vec::new(), ..runtime(&dir, features) };
            assert!(missing(&runtime)[0].contains(says), "{:?}", missing(&runtime));
        }
    }
}
