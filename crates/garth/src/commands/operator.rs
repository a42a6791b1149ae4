use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use garth_cluster::{OperatorConfig, Settings};

use crate::duration;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

#[derive(Debug, Args)]
#[command(after_help = "\
Makes a Pod, a disk and a network policy of each Project of the cluster that KUBECONFIG or the Pod's
account leads to. Of several operators one leads, and another takes over when it ends. SIGTERM ends
it; sandboxes go on running.")]
pub struct Operator {
    /// Image that holds /garth-agent (`garth cluster image` makes it)
    #[arg(long, value_name = "IMAGE", default_value = "garth:latest")]
    pub agent_image: String,
    /// Namespace that the operator and the gateway run in
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", hide_env_values = true, default_value = "garth")]
    pub namespace: String,
    /// A name of its own among the operators of the cluster [default: the host's and the process's]
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env_values = true)]
    pub identity: Option<String>,
    /// Give up sandboxes in which nothing has gone on for so long, of projects that say nothing of it; the next request
    /// wakes them [default: never]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub suspend_after: Option<Duration>,
    /// Projects that are worked on at once
    #[arg(long, value_name = "COUNT", default_value = "16", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Answer `GET /metrics` (OpenMetrics) and `GET /healthz` there, to whoever asks [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
}

pub fn run(args: Operator) -> Result<u8> {
    garth_server::log_as_json();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("cannot start", &error))?;
    let ended = runtime.block_on(operate(args));
    runtime.shutdown_background();
    ended.map(|()| 0)
}

async fn operate(args: Operator) -> Result<()> {
    let client = garth_cluster::connect().await.map_err(|error| failed("cannot reach the cluster", &error))?;
    let identity = args.identity.unwrap_or_else(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        format!("{host}-{}", std::process::id())
    });
    let seconds = |after: Duration| u32::try_from(after.as_secs()).unwrap_or(u32::MAX).max(1);
    let settings = Settings {
        agent_image: args.agent_image,
        namespace: args.namespace,
        suspend_after_seconds: args.suspend_after.map(seconds),
    };
    let config = OperatorConfig { settings, identity, concurrency: args.concurrency, metrics: args.metrics };
    tokio::select! {
        ended = garth_cluster::operator::run(client, config) => {
            ended.map_err(|error| failed("the operator ended", &error))
        }
        () = crate::signals::asked_to_end() => Ok(()),
    }
}

fn failed(doing: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Exit::Failed, "cluster_failed", doing).because(error)
}
