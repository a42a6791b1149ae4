//! The agent as process 1 of a Kubernetes Pod's container, and how it gets there.
//!
//! The Pod's container is the boundary, and whoever shows the project's token may do anything in it; the cluster's network
//! is full of others. A process in the sandbox may read the token: it opens nothing but what that process is in already.

use std::fs;
use std::hint::black_box;
use std::io;
use std::net::{Ipv6Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use garth_spec::{AgentConfig, pod};
use http::{Method, Request};

use crate::idle::{self, Requests};
use crate::server::Site;
use crate::{Connections, Over, ServeError, Shared, at, run as serve};

/// What clients show: the token of the project.
pub(crate) struct Token(String);

impl Token {
    /// Whether a request may pass; its token goes no further.
    pub(crate) fn admits<B>(&self, request: &mut Request<B>) -> Admission {
        let shown = request.headers_mut().remove(pod::TOKEN_HEADER);
        if request.method() == Method::GET && request.uri().path() == "/health" {
            return Admission::Probe;
        }
        match shown.is_some_and(|shown| same(shown.as_bytes(), self.0.as_bytes())) {
            true => Admission::Client,
            false => Admission::Refused,
        }
    }
}

/// Whose a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Who shows the token.
    Client,
    /// The kubelet's, or anyone's: whether the agent lives is everybody's to know.
    Probe,
    /// Nobody's that may pass.
    Refused,
}

/// Compares in a time that depends on the lengths alone.
fn same(left: &[u8], right: &[u8]) -> bool {
    let differing = left.iter().zip(right).fold(0, |bits, (left, right)| black_box(bits | (left ^ right)));
    left.len() == right.len() && differing == 0
}

/// Serves until SIGTERM, or until nothing goes on in it any more; the code to exit with, by which the operator tells
/// them apart.
///
/// # Errors
/// When what the Pod should hold for it (`garth_spec::pod`) is not there.
pub fn run() -> Result<u8, ServeError> {
    let (environment, config) = environment();
    let config = config.ok_or_else(|| io::Error::other(format!("{} is not set", pod::CONFIG_VARIABLE)));
    let config =
        config.and_then(|text| Ok(serde_json::from_str::<AgentConfig>(&text)?)).map_err(at("configuration"))?;
    let config = AgentConfig { env: environment.into_iter().chain(config.env).collect(), ..config };
    let token = fs::read_to_string(pod::TOKEN_FILE).map_err(at("token"))?;
    let token = Token(token.trim().to_owned());
    if token.0.is_empty() {
        return Err(at("token")(io::Error::other(format!("{} is empty", pod::TOKEN_FILE))));
    }
    let state = OwnedFd::from(fs::File::open(pod::STATE_DIR).map_err(at("state directory"))?);
    // A socket of both families, where the node has IPv6 (ipv6(7), IPV6_V6ONLY).
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, pod::PORT))
        .or_else(|_| TcpListener::bind(("0.0.0.0", pod::PORT)))
        .map_err(at("listen"))?;
    let requests = Arc::new(Requests::new());
    let quiet = config.suspend_after_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let idle = {
        let requests = Arc::clone(&requests);
        async move {
            match quiet {
                Some(quiet) => requests.none_for(quiet, idle::others_run).await,
                None => std::future::pending().await,
            }
        }
    };
    let site = || Ok(Site::guarded(Shared::new(config, state).map_err(at("processes"))?, token, requests));
    match serve(Connections::Network(listener), site, idle)? {
        Over::Asked => Ok(pod::ENDED),
        Over::Idle => Ok(pod::IDLE),
    }
}

/// What the image and the Pod say of processes' environment, without what is the agent's own or the cluster's; and the
/// agent's configuration.
fn environment() -> (Vec<(String, String)>, Option<String>) {
    let mut config = None;
    let text = |word: std::ffi::OsString| word.to_string_lossy().into_owned();
    let mut environment: Vec<_> = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    environment.retain(|(name, value)| {
        if name == pod::CONFIG_VARIABLE {
            config = Some(value.clone());
        }
        !name.starts_with("KUBERNETES_") && name != pod::CONFIG_VARIABLE && name != "HOSTNAME"
    });
    (environment, config)
}

/// Puts this program into `directory`, and makes the directories of the disk, which it may find there already.
///
/// # Errors
/// When the disk or the directory cannot be written.
pub fn install(directory: &Path, disk: &Path) -> io::Result<()> {
    let name = Path::new(pod::INSTALLED).file_name().unwrap_or_default();
    // A name of its own first: a container that is started meanwhile finds all of it or nothing.
    let new = directory.join("new");
    fs::copy("/proc/self/exe", &new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(&new, directory.join(name))?;
    for name in [pod::FILES, pod::STATE] {
        match fs::create_dir(disk.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        // The group is the volume's, and every sandbox of the project is in it, whoever runs its processes.
        fs::set_permissions(disk.join(name), fs::Permissions::from_mode(0o2770))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(path: &'static str, shown: Option<&str>) -> Admission {
        let mut request = Request::get(path);
        if let Some(shown) = shown {
            request = request.header(pod::TOKEN_HEADER, shown);
        }
        let mut request = request.body(()).expect("request");
        let admitted = Token("secret".to_owned()).admits(&mut request);
        assert!(!request.headers().contains_key(pod::TOKEN_HEADER), "the token went on");
        admitted
    }

    #[test]
    fn only_the_token_itself_opens_the_agent() {
        assert_eq!(admits("/files", Some("secret")), Admission::Client);
        for shown in [None, Some(""), Some("secre"), Some("secret1"), Some("Secret"), Some("secreu")] {
            assert_eq!(admits("/files", shown), Admission::Refused, "{shown:?}");
        }
        // Also with it: a sandbox that is only looked at is idle.
        for shown in [None, Some("secret")] {
            assert_eq!(admits("/health", shown), Admission::Probe);
        }
        assert_eq!(admits("/health/../files", None), Admission::Refused);
    }

    #[test]
    fn installing_twice_keeps_what_is_on_the_disk() {
        let (directory, disk) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("disk"));
        install(directory.path(), disk.path()).expect("first");
        fs::write(disk.path().join(pod::FILES).join("note"), "kept").expect("a file");
        install(directory.path(), disk.path()).expect("second");
        assert_eq!(fs::read(disk.path().join(pod::FILES).join("note")).expect("the file"), b"kept");
        let installed = fs::metadata(directory.path().join("garth-agent")).expect("the program");
        assert_eq!(installed.permissions().mode() & 0o777, 0o755);
    }
}
