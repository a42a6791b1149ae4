//! One run of the daemon, from the lock on its data directory to the last answer.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use garth_engine::{DataDir, EngineConfig, GuestConfig};
use jiff::Timestamp;
use rustix::process::{Resource, Rlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::engine::Engine;
use crate::keys::{KeyStore, Keys};
use crate::peer::Peer;
use crate::router::{App, router};
use crate::socket;
use crate::tls::{Encrypted, TlsError, TlsFiles};

/// What a daemon needs to know.
#[derive(Debug)]
pub struct ServeConfig {
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// Where it listens; `garth.sock` in the data directory when absent.
    pub socket: Option<PathBuf>,
    /// Where it listens for callers with a key, besides.
    pub listen: Option<SocketAddr>,
    /// By what it proves there who it is, and encrypts; nothing is encrypted when absent.
    pub tls: Option<TlsFiles>,
    /// Where sandboxes live.
    pub engine: EngineChoice,
    /// Where one line, `"ready"`, is written once it answers.
    pub ready: Option<OwnedFd>,
}

/// Where sandboxes live.
#[derive(Debug)]
pub enum EngineChoice {
    /// On this machine.
    Local {
        /// How microVMs are run.
        guests: GuestConfig,
        /// The agent's program.
        agent: &'static [u8],
    },
    /// On the cluster that `KUBECONFIG` or the Pod's service account leads to.
    Cluster(garth_cluster::EngineConfig),
}

/// Why a daemon did not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The engine could not be opened or closed.
    #[error(transparent)]
    Engine(#[from] garth_engine::Error),
    /// The cluster cannot be used.
    #[error(transparent)]
    Cluster(#[from] garth_cluster::engine::Error),
    /// The socket could not be made.
    #[error("cannot listen at {}", .path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The address cannot be listened at.
    #[error("cannot listen at {address}")]
    ListenTcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The runtime, a signal handler or the readiness pipe failed.
    #[error("cannot run the daemon")]
    Run(#[from] io::Error),
}

impl ServeError {
    /// The error as clients see it, with its code and hint.
    pub fn report(self) -> garth_api::Error {
        let error = match self {
            Self::Engine(error) => return crate::failure::Failure::from(error).into_error(),
            Self::Cluster(error) => return crate::failure::Failure::from(error).into_error(),
            error => error,
        };
        let code = match &error {
            Self::Tls(_) => garth_api::ErrorCode::InvalidRequest,
            _ => garth_api::ErrorCode::Internal,
        };
        let mut report = garth_api::Error::new(code, error.to_string());
        report.cause.extend(std::error::Error::source(&error).map(ToString::to_string));
        report
    }

    /// Whether another daemon has the data directory.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Engine(error) if matches!(error.kind(), garth_engine::ErrorKind::Locked { .. }))
    }
}

/// How long answers under way may take once the daemon goes down.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// How long changes under way may take once the daemon goes down; the next daemon finishes what is left.
const LAST_CHANGES: Duration = Duration::from_secs(20);

/// Runs the daemon until SIGTERM or SIGINT. Sandboxes go on running.
pub fn run(config: ServeConfig) -> Result<(), ServeError> {
    log_as_json();
    raise_descriptors();
    // One thread passes all bytes: a piece on its way from an agent to a client crosses four tasks, and waking another
    // thread for each costs more than the work. What blocks has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(config));
    // A blocking read of a body that never comes must not keep the daemon.
    runtime.shutdown_background();
    served
}

/// Logs to standard error, as lines of JSON; `GARTH_LOG` says how much.
pub fn log_as_json() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GARTH_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(io::stderr);
    // A program that has set up its own log keeps it.
    let _ = log.try_init();
}

/// Descriptors for ten thousand sandboxes, at about six each. No more: what the daemon starts inherits the limit, and
/// some programs close every descriptor they could have.
const DESCRIPTORS: u64 = 65_536;

/// The usual soft limit of 1024 is there for programs that use select(2) (systemd.exec(5), LimitNOFILE).
fn raise_descriptors() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    if limit.current.is_none_or(|current| current >= most) {
        return;
    }
    let raised = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limit });
    if let Err(error) = raised {
        tracing::warn!(%error, ?limit, "descriptors are few");
    }
}

async fn serve(config: ServeConfig) -> Result<(), ServeError> {
    let started_at = Timestamp::now();
    let data_dir = DataDir::lock(&config.data_dir)?;
    let path = config.socket.unwrap_or_else(|| data_dir.path().join("garth.sock"));
    let app_dir: Arc<std::path::Path> = data_dir.path().into();
    let (engine, keys, _lock) = match config.engine {
        EngineChoice::Local { guests, agent } => {
            let engine = garth_engine::Engine::open(EngineConfig { data_dir, guests, agent }).await?;
            (Engine::Local(engine), KeyStore::File(app_dir.join("keys.json")), None)
        }
        EngineChoice::Cluster(config) => {
            let engine = garth_cluster::Engine::open(garth_cluster::connect().await?, config).await?;
            (Engine::Cluster(engine.clone()), KeyStore::Cluster(engine), Some(data_dir))
        }
    };
    let listener = socket::listen(&path).map_err(|source| ServeError::Listen { path: path.clone(), source })?;
    let network = match config.listen {
        Some(address) => {
            Some(TcpListener::bind(address).await.map_err(|source| ServeError::ListenTcp { address, source })?)
        }
        None => None,
    };
    let app = App { engine: engine.clone(), keys: Arc::new(Keys::new(keys)), data_dir: app_dir, started_at };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, stopped) = watch::channel(false);
    if let Some(network) = network {
        tracing::info!(address = ?network.local_addr(), encrypted = config.tls.is_some(), "listens for callers with keys");
        match config.tls {
            Some(files) => {
                tokio::spawn(accept(Encrypted::new(network, files)?, app.clone(), stopped.clone()));
            }
            None => {
                tokio::spawn(accept(network, app.clone(), stopped.clone()));
            }
        }
    }
    let serving = tokio::spawn(accept(listener, app, stopped));
    if let Some(ready) = config.ready {
        File::from(ready).write_all(b"\"ready\"\n")?;
    }
    tracing::info!(socket = %path.display(), pid = std::process::id(), "ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("going down; sandboxes stay");
    // From here on whoever comes starts the next daemon, which waits until this one is gone; and a connection that
    // ends is not taken for a hold that is let go.
    engine.leave();
    let _ = std::fs::remove_file(&path);
    let closed = tokio::time::timeout(LAST_CHANGES, engine.close()).await;
    let _ = stop.send(true);
    let _ = tokio::time::timeout(LAST_ANSWERS, serving).await;
    closed.unwrap_or(Ok(())).map_err(Into::into)
}

async fn accept<L>(listener: L, app: App, mut stopped: watch::Receiver<bool>) -> io::Result<()>
where
    L: Listener,
    L::Addr: std::fmt::Debug,
    Peer: for<'a> Connected<IncomingStream<'a, L>>,
{
    let stopped = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let service = router(app).into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service).with_graceful_shutdown(stopped).await
}
