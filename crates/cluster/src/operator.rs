//! The operator: has the cluster be what the projects ask for, as long as it is the one that leads.

mod apply;
mod events;
mod lease;
mod metrics;
mod pools;
mod reconcile;
mod refusals;
mod sight;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use kube::Client;
use kube::runtime::controller;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::render::Settings;
use metrics::serve::{Limits, serve};
use metrics::{Kind, Metrics, Pulse};
use reconcile::{Context, Reconciling};

pub use lease::{LeaseError, NAME as LEASE_NAME};

type Failed = controller::Error<apply::Refused, std::convert::Infallible>;

/// What an operator needs to know.
#[derive(Debug, Clone)]
pub struct OperatorConfig {
    /// What it is told about the cluster.
    pub settings: Settings,
    /// A name of its own among the operators of this cluster: its Pod's.
    pub identity: String,
    /// Reconciliations at once.
    pub concurrency: u16,
    /// Where it answers `GET /metrics` and `GET /healthz`; nowhere when absent.
    pub metrics: Option<SocketAddr>,
}

/// Why an operator ended.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Another leads, or the API server could not be asked for too long.
    #[error("the operator no longer leads")]
    Lease(#[from] LeaseError),
    /// Something that it watches cannot be read.
    #[error("the operator cannot see {what}")]
    Blind {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// Its metrics cannot be served.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A task of its own ended.
    #[error("a watch of the operator ended")]
    WatchEnded,
}

/// How close to each other changes of one project are taken as one.
const DEBOUNCE: Duration = Duration::from_millis(2);

/// Leads whenever it can, and reconciles for as long as it leads.
///
/// # Errors
/// When what it must see cannot be seen: rights or definitions are missing.
pub async fn run(client: Client, config: OperatorConfig) -> Result<(), OperatorError> {
    let (metrics, pulse) = (Metrics::new(), Pulse::new());
    // Ends with this function.
    let mut served = JoinSet::new();
    if let Some(address) = config.metrics {
        let listening = TcpListener::bind(address).await;
        let listener = listening.map_err(|source| OperatorError::Listen { address, source })?;
        served.spawn(serve(listener, metrics.clone(), pulse.clone(), Limits::default()));
    }
    let client = counted(client, metrics.clone());
    sight::check(&client).await?;
    loop {
        match lead(client.clone(), config.clone(), &metrics, &pulse).await {
            // It begins anew, with nothing that it believed before.
            Err(OperatorError::Lease(error @ (LeaseError::Taken(_) | LeaseError::NotRenewed(_)))) => {
                tracing::warn!(%error, "no longer leads");
            }
            ended => return ended,
        }
    }
}

/// The same client, with each of its requests counted.
fn counted(client: Client, metrics: Metrics) -> Client {
    let namespace = client.default_namespace().to_owned();
    let passed = tower::service_fn(move |request| {
        metrics.asks(&request);
        let client = client.clone();
        async move { client.send(request).await }
    });
    Client::new(passed, namespace)
}

/// Waits until it leads; returns once it no longer does.
async fn lead(client: Client, config: OperatorConfig, metrics: &Metrics, pulse: &Pulse) -> Result<(), OperatorError> {
    let lease = lease::Lease::new(client.clone(), &config.settings.namespace, &config.identity, pulse.clone());
    let held = lease.acquire().await?;
    tracing::info!(identity = config.identity, "leads");
    let _leads = metrics.lead();
    tokio::select! {
        lost = held.keep() => Err(lost.into()),
        ended = reconcile_all(client, config, metrics.clone()) => ended,
    }
}

async fn reconcile_all(client: Client, config: OperatorConfig, metrics: Metrics) -> Result<(), OperatorError> {
    let (sight, changes, pool_changes, watches) = sight::open(&client);
    // Half a picture looks like a loss.
    sight.wait().await.map_err(|_| OperatorError::WatchEnded)?;
    metrics.sees(sight.clone());
    let (projects, pools) = (sight.projects.clone(), sight.pools.clone());
    let context = Context::new(client, sight, config.settings, metrics);
    let limits = controller::Config::default().debounce(DEBOUNCE).concurrency(config.concurrency);
    let (fill, apply) = (measured(Kind::Pool, pools::run), measured(Kind::Project, reconcile::run));
    let filled =
        controller::applier(fill, pools::after_error, Arc::clone(&context), pools, pool_changes, limits.clone());
    let applied = controller::applier(apply, reconcile::after_error, context, projects, changes, limits);
    tokio::select! {
        () = until_end(applied) => Err(OperatorError::WatchEnded),
        () = until_end(filled) => Err(OperatorError::WatchEnded),
        () = watches => Err(OperatorError::WatchEnded),
    }
}

/// The same reconciliation, with its outcome and its time counted.
fn measured<K: 'static>(
    kind: Kind,
    run: fn(Arc<K>, Arc<Context>) -> Reconciling,
) -> impl Fn(Arc<K>, Arc<Context>) -> Reconciling {
    move |object, context| {
        let metrics = context.metrics.clone();
        let reconciling = run(object, context);
        Box::pin(async move {
            let began = Instant::now();
            let outcome = reconciling.await;
            metrics.reconciled(kind, &outcome, began.elapsed());
            outcome
        })
    }
}

async fn until_end<T>(reconciled: impl Stream<Item = Result<T, Failed>>) {
    let each = reconciled.for_each(|result| async {
        if let Err(error) = result {
            reconcile::log(&error);
        }
    });
    each.await;
}
