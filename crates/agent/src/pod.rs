//! The agent as process 1 of a Kubernetes Pod's container, and how it gets there.
//!
//! The Pod's container is the boundary, and whoever knows the project's token may do anything in it; the cluster's network
//! is full of others, who listen: so the token is a key, which is proven and never sent (`garth_channel::sealed`). A process in
//! the sandbox may read it: it opens nothing but what that process is in already.

use std::fs;
use std::io;
use std::net::{Ipv6Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use garth_channel::sealed::Key;
use garth_spec::pod::Binding;
use garth_spec::{AgentConfig, pod};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::idle::{self, Requests, UnderWay};
use crate::plain;
use crate::refusal::Refusal;
use crate::server::{Answer, Site, empty};
use crate::{Connections, Over, ServeError, Shared, at, lock, run as serve};

/// The largest binding: more than execve(2) takes of environment.
const LARGEST_BINDING: usize = 8 << 20;

/// What an agent knows of being in a Pod.
pub(crate) struct Pod {
    requests: Requests,
    /// What the agent begins with, until it has.
    birth: Mutex<Option<Birth>>,
}

impl Pod {
    pub(crate) fn new(birth: Option<Birth>) -> Self {
        Self { requests: Requests::new(), birth: Mutex::new(birth) }
    }

    /// A request begins. Who only looks keeps no sandbox awake.
    pub(crate) fn begins<B>(&self, request: &Request<B>) -> Option<UnderWay> {
        let looks = ["/health", pod::USAGE].contains(&request.uri().path());
        (!looks).then(|| self.requests.begin())
    }

    /// Begins with a project. The first one is the only one; it may be told of again, since gateways are many.
    pub(crate) async fn bind(&self, request: Request<Incoming>, site: &Site) -> Response<Answer> {
        let bound = async {
            let body = Limited::new(request.into_body(), LARGEST_BINDING).collect().await;
            let body = body.map_err(|error| Refusal::invalid(error.to_string()))?.to_bytes();
            let binding: Binding =
                serde_json::from_slice(&body).map_err(|error| Refusal::invalid(format!("no binding: {error}")))?;
            if let Some(birth) = lock(&self.birth).take() {
                site.begin(birth.agent(binding).map_err(|error| Refusal::of(&error, pod::STATE_DIR))?);
            }
            Ok(empty(StatusCode::NO_CONTENT))
        };
        bound.await.unwrap_or_else(|refusal: Refusal| plain::refuse(&refusal))
    }

    /// Returns once nothing has gone on for as long as this.
    pub(crate) async fn none_for(&self, quiet: Duration) {
        self.requests.none_for(quiet, idle::others_run).await;
    }
}

/// Serves until SIGTERM, or until nothing goes on in it any more; the code to exit with, by which the operator tells
/// them apart.
///
/// # Errors
/// When what the Pod should hold for it (`garth_spec::pod`) is not there.
pub fn run() -> Result<u8, ServeError> {
    let late = std::env::var_os(pod::LATE_VARIABLE).is_some();
    let (environment, config) = environment();
    let config = config.ok_or_else(|| io::Error::other(format!("{} is not set", pod::CONFIG_VARIABLE)));
    let config =
        config.and_then(|text| Ok(serde_json::from_str::<AgentConfig>(&text)?)).map_err(at("configuration"))?;
    let config = AgentConfig { env: environment.into_iter().chain(config.env).collect(), ..config };
    let token = fs::read_to_string(pod::TOKEN_FILE).map_err(at("token"))?;
    let key = Key::from_hex(token.trim()).ok_or_else(|| {
        at("token")(io::Error::other(format!("{} does not hold 64 hexadecimal digits", pod::TOKEN_FILE)))
    })?;
    let state = OwnedFd::from(fs::File::open(pod::STATE_DIR).map_err(at("state directory"))?);
    let birth = Birth { config, state };
    // A socket of both families, where the node has IPv6 (ipv6(7), IPV6_V6ONLY).
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, pod::PORT))
        .or_else(|_| TcpListener::bind(("0.0.0.0", pod::PORT)))
        .map_err(at("listen"))?;
    let site = || match late {
        true => Ok(Site::of_pod(Pod::new(Some(birth)))),
        false => {
            let site = Site::of_pod(Pod::new(None));
            site.begin(birth.agent(Binding::default()).map_err(at("processes"))?);
            Ok(site)
        }
    };
    match serve(Connections::Network(listener, key), site)? {
        Over::Asked => Ok(pod::ENDED),
        Over::Idle => Ok(pod::IDLE),
    }
}

/// What an agent begins with.
pub(crate) struct Birth {
    config: AgentConfig,
    state: OwnedFd,
}

impl Birth {
    /// The agent of a project that adds this.
    pub(crate) fn agent(self, binding: Binding) -> io::Result<Arc<Shared>> {
        let Self { config, state } = self;
        let suspend_after = binding.suspend_after_seconds.or(config.suspend_after_seconds);
        let config = AgentConfig {
            env: config.env.into_iter().chain(binding.env).collect(),
            workdir: binding.workdir.or(config.workdir),
            suspend_after_seconds: suspend_after.filter(|seconds| *seconds > 0),
            ..config
        };
        Shared::new(config, state)
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
        let own = [pod::CONFIG_VARIABLE, pod::LATE_VARIABLE, "HOSTNAME"].contains(&name.as_str());
        !own && !name.starts_with("KUBERNETES_")
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

    #[test]
    fn who_only_looks_keeps_no_sandbox_awake() {
        let here = Pod::new(None);
        let begins = |path| here.begins(&Request::get(path).body(()).expect("a request")).is_some();
        assert!(begins("/files") && begins("/health/../files") && begins(pod::BIND));
        assert!(!begins(pod::USAGE) && !begins("/health"));
    }

    #[test]
    fn what_a_project_adds_wins_over_what_its_pod_had() {
        let state = tempfile::tempdir().expect("a directory");
        let birth = |suspend_after_seconds| Birth {
            config: AgentConfig {
                env: vec![("A".to_owned(), "image".to_owned())],
                suspend_after_seconds,
                ..AgentConfig::default()
            },
            state: fs::File::open(state.path()).expect("open").into(),
        };
        let binding = Binding {
            env: vec![("A".to_owned(), "project".to_owned())],
            workdir: Some("/srv".to_owned()),
            suspend_after_seconds: Some(0),
        };
        let config = birth(Some(60)).agent(binding).expect("an agent").config.clone();
        assert_eq!(config.env.last(), Some(&("A".to_owned(), "project".to_owned())));
        assert_eq!((config.workdir.as_deref(), config.suspend_after_seconds), (Some("/srv"), None));
        let config = birth(Some(60)).agent(Binding::default()).expect("an agent").config.clone();
        assert_eq!((config.workdir, config.suspend_after_seconds), (None, Some(60)));
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
