//! What the operator measures, for Prometheus.
//!
//! What it does is counted where it is done; how projects and pools are is read from its copies when it is asked, while it
//! leads. Labels are of closed sets, except a pool's name and namespace.

mod leading;
mod pulse;
pub(super) mod serve;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use k8s_openapi::jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::apply::Refused;
use super::refusals::Class;
use super::sight::Sight;
use crate::resources::{Project, ProjectStatus};
use leading::{Leading, Leadings};

pub(super) use leading::Leads;
pub(super) use pulse::Pulse;

/// All that is measured. Its clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Metrics(Arc<Measured>);

#[derive(Debug)]
struct Measured {
    registry: Registry,
    reconciliations: Family<Reconciliation, Counter>,
    durations: Family<OfKind, Histogram, fn() -> Histogram>,
    refusals: Family<Refusal, Counter>,
    requests: Family<Asked, Counter>,
    starts: Family<Start, Histogram, fn() -> Histogram>,
    leading: Leadings,
}

/// What is reconciled.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Project,
    Pool,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Project, Self::Pool];

    fn word(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Pool => "pool",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciliation {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Start {
    runtime: String,
    start: &'static str,
}

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
const WATCH: &str = "WATCH";
const DONE: &str = "done";
const REFUSED: &str = "refused";

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("garth_operator");
        registry.register("build", "The operator's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let reconciliations = Family::default();
        registry.register("reconciliations", "Projects and pools that were looked at", reconciliations.clone());
        let durations = Family::new_with_constructor(reconciling_takes as fn() -> Histogram);
        let help = "How long that took, with the requests to the API server";
        registry.register_with_unit("reconciliation_duration", help, Unit::Seconds, durations.clone());
        let refusals = Family::default();
        registry.register("refusals", "Requests that the API server refused or did not answer", refusals.clone());
        let requests = Family::default();
        registry.register("requests", "Requests to the API server; a watch is one", requests.clone());
        let starts = Family::new_with_constructor(starting_takes as fn() -> Histogram);
        let help = "From when a project is to run and does not until its agent can be reached";
        registry.register_with_unit("start_duration", help, Unit::Seconds, starts.clone());
        let leading = Leadings::default();
        registry.register_collector(Box::new(leading.clone()));
        let measured = Measured { registry, reconciliations, durations, refusals, requests, starts, leading };
        measured.begin_at_zero();
        Self(Arc::new(measured))
    }

    /// As OpenMetrics text.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    /// This operator leads, until what is returned is dropped.
    pub(super) fn lead(&self) -> Leads {
        self.0.leading.begin(Timestamp::now())
    }

    /// The leader's copies are whole.
    pub(super) fn sees(&self, sight: Sight) {
        self.0.leading.sees(sight);
    }

    pub(super) fn reconciled<T>(&self, kind: Kind, outcome: &Result<T, Refused>, took: Duration) {
        let kind = kind.word();
        let word = if outcome.is_ok() { DONE } else { REFUSED };
        self.0.reconciliations.get_or_create(&Reconciliation { kind, outcome: word }).inc();
        self.0.durations.get_or_create(&OfKind { kind }).observe(took.as_secs_f64());
        if let Err(refused) = outcome {
            self.refused(refused);
        }
    }

    pub(super) fn refused(&self, refused: &Refused) {
        self.0.refusals.get_or_create(&Refusal { reason: Class::of(refused).word() }).inc();
    }

    /// A request goes to the API server.
    pub(super) fn asks<B>(&self, request: &Request<B>) {
        let watches = request.uri().query().is_some_and(|query| query.split('&').any(|word| word == "watch=true"));
        let known = METHODS.into_iter().find(|method| *method == request.method().as_str());
        let method = if watches { WATCH } else { known.unwrap_or("other") };
        self.0.requests.get_or_create(&Asked { method }).inc();
    }

    /// A project was told of its new status.
    pub(super) fn told(&self, project: &Project, status: &ProjectStatus) {
        let waited = self.0.leading.change(|leading| leading.told(project, status, Timestamp::now()));
        if let Some(waited) = waited.flatten() {
            let pool = status.sandbox.as_ref().is_some_and(|sandbox| sandbox.secret.is_some());
            let start = if pool { "warm" } else { "cold" };
            let start = Start { runtime: leading::level(project, status).to_owned(), start };
            self.0.starts.get_or_create(&start).observe(waited.as_secs_f64());
        }
    }

    /// A project is nobody's concern any more.
    pub(super) fn forget(&self, project: &Project) {
        self.0.leading.change(|leading: &mut Leading| leading.forget(project));
    }
}

impl Measured {
    /// A series that begins with its first event has no increase by it.
    fn begin_at_zero(&self) {
        for kind in Kind::ALL.map(Kind::word) {
            for outcome in [DONE, REFUSED] {
                drop(self.reconciliations.get_or_create(&Reconciliation { kind, outcome }));
            }
            drop(self.durations.get_or_create(&OfKind { kind }));
        }
        for method in METHODS.into_iter().chain([WATCH]) {
            drop(self.requests.get_or_create(&Asked { method }));
        }
        for class in Class::ALL {
            drop(self.refusals.get_or_create(&Refusal { reason: class.word() }));
        }
    }
}

fn reconciling_takes() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

fn starting_takes() -> Histogram {
    Histogram::new([0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0])
}
