use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use garth_agent_binary::AGENT;
use garth_kernel::descriptors;
use garth_server::{ClusterConfig, EngineChoice, GuestConfig, ServeConfig, TlsFiles};
use garth_spec::Accel;

use crate::daemon::{Endpoint, Report};
use crate::duration;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

#[derive(Debug, Args)]
#[command(after_help = "\
Every other command starts a daemon when none answers; this one keeps it in the foreground, for an
init system. SIGTERM ends the daemon and leaves all sandboxes running: the next one finds them.
GARTH_LOG sets what is logged: error, warn, info, debug, or per module.")]
pub struct Serve {
    /// Socket to listen at [default: garth.sock in the data directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Address and port to listen at as well, for callers with a key (`garth key create`); encrypted with --tls-cert
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Certificate for --listen, in PEM, with those that lead to its authority; read again when it is replaced
    #[arg(long, value_name = "FILE", requires = "listen", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Directory for what all daemons of the machine share: kernels and files of guests
    #[arg(
        long,
        value_name = "DIR",
        env = "GARTH_CACHE_DIR",
        hide_env_values = true,
        default_value = "/var/cache/garth"
    )]
    pub cache_dir: PathBuf,
    /// What may run microVMs: kvm; tcg, QEMU's translator, slower; or auto, tcg where kvm does not work
    #[arg(long, value_name = "WHAT", env = "GARTH_ACCEL", hide_env_values = true, default_value = "auto", value_parser = accel)]
    pub accel: Accel,
    /// Where sandboxes live: local, this machine; or kubernetes, the cluster that KUBECONFIG or the Pod's account leads to
    #[arg(long, value_name = "ENGINE", default_value = "local")]
    pub engine: EngineName,
    #[command(flatten)]
    pub cluster: Cluster,
    /// Started by another command: own session, first line of output says whether it works
    #[arg(long, hide = true)]
    pub background: bool,
}

/// Where sandboxes live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    Local,
    Kubernetes,
}

/// What is said of a cluster.
#[derive(Debug, Args)]
#[command(next_help_heading = "With --engine kubernetes")]
pub struct Cluster {
    /// Namespace of the projects
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// Namespace of this gateway, where keys are kept
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", hide_env_values = true, default_value = "garth")]
    pub own_namespace: String,
    /// Image of projects that name none
    #[arg(long, value_name = "IMAGE", default_value = "debian:12")]
    pub default_image: String,
    /// How long a start may wait for a node
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration::parse)]
    pub start_within: Duration,
}

fn accel(word: &str) -> std::result::Result<Accel, String> {
    let found = Accel::ALL.into_iter().find(|accel| accel.word() == word);
    found.ok_or_else(|| "use auto, kvm or tcg".to_owned())
}

pub fn run(endpoint: &Endpoint, args: &Serve) -> Result<u8> {
    let Endpoint::DataDir(data_dir) = endpoint else {
        return Err(Failure::usage("serve takes a data directory, not a host").hint("unset GARTH_HOST"));
    };
    let socket = args.socket.as_ref().map(std::path::absolute).transpose();
    let socket = socket.map_err(|error| Failure::io("cannot find the current directory", &error))?;
    let ready = if args.background { Some(step_back()?) } else { None };
    let told = ready.as_ref().map(std::os::fd::OwnedFd::try_clone).transpose();
    let told = told.map_err(|error| Failure::io("cannot start", &error))?;
    let engine = match args.engine {
        EngineName::Local => {
            let guests = GuestConfig { cache_dir: args.cache_dir.clone(), accel: args.accel };
            EngineChoice::Local { guests, agent: AGENT }
        }
        EngineName::Kubernetes => EngineChoice::Cluster(ClusterConfig {
            namespace: args.cluster.namespace.clone(),
            own_namespace: args.cluster.own_namespace.clone(),
            default_image: args.cluster.default_image.clone(),
            start_within: args.cluster.start_within,
        }),
    };
    let tls = args.tls_cert.clone().zip(args.tls_key.clone());
    let tls = tls.map(|(certificate, key)| TlsFiles { certificate, key });
    let config = ServeConfig { data_dir: data_dir.clone(), socket, listen: args.listen, tls, engine, ready };
    let Err(error) = garth_server::run(config) else { return Ok(0) };
    let taken = error.is_taken();
    let failure = Failure { exit: Exit::Unreachable, ..error.report().into() };
    let report = if taken { Report::Taken } else { Report::Failed(failure.clone().into()) };
    if let (Some(told), Ok(line)) = (told, serde_json::to_vec(&report)) {
        // Whoever started this may be gone; the log has it as well.
        let _ = rustix::io::write(&told, &[line.as_slice(), b"\n"].concat());
    }
    Err(failure)
}

/// Leaves the session and the terminal of whoever started this; standard output becomes the log, and
/// where it went before comes back.
fn step_back() -> Result<std::os::fd::OwnedFd> {
    let cannot = |error: rustix::io::Errno| Failure::io("cannot leave the session", &io::Error::from(error));
    // A lock, or a pipe's end, that the caller's shell holds open must not stay so for as long as a daemon lives.
    descriptors::close_all_but(&[]).map_err(|error| Failure::io("cannot close what was inherited", &error))?;
    rustix::process::setsid().map_err(cannot)?;
    let told = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(cannot)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr()).map_err(cannot)?;
    Ok(told)
}
