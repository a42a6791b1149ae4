//! What of a cluster works for Garth, what does not, and what mends it.
//!
//! ```text
//! cluster --look--> Seen --judge--> Sections of Findings
//! ```

mod judge;
mod look;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::resources::IsolationClass;

pub use judge::judge;
pub use look::look;

/// Where Garth is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Where {
    /// The namespace of the operator and the gateway.
    pub namespace: String,
    /// The namespace of the projects.
    pub projects: String,
}

/// What a cluster shows. What may not be seen says why.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The API server's version: major, minor, and its whole name.
    pub version: (u32, u32, String),
    /// The definitions of Garth's resources that are there.
    pub definitions: Sight<Vec<CustomResourceDefinition>>,
    /// How the cluster carries runtimes out.
    pub classes: Sight<Vec<IsolationClass>>,
    /// What the classes name.
    pub runtime_classes: Sight<Vec<RuntimeClass>>,
    /// The nodes.
    pub nodes: Sight<Vec<Node>>,
    /// The classes of volumes.
    pub storage_classes: Sight<Vec<StorageClass>>,
    /// Who leads.
    pub leader: Sight<Option<Leader>>,
    /// Replicas of the operator's Deployment that are ready, and that are wanted.
    pub operators: Sight<Option<(i32, i32)>>,
    /// The same of the gateway's.
    pub gateways: Sight<Option<(i32, i32)>>,
    /// What the projects' namespace enforces of the Pod Security Standards; nothing when there is no such namespace.
    pub projects: Sight<Option<PodSecurity>>,
    /// For whom it was looked, and what that may not do.
    pub user: Sight<User>,
}

/// What was seen, or why not.
pub type Sight<T> = Result<T, String>;

/// The operator that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its name.
    pub name: String,
    /// When it last said that it leads.
    pub renewed: Option<Time>,
}

/// What a namespace enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSecurity {
    /// The level, if it says one.
    pub enforced: Option<String>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// For each part of Garth that it could be: which, and the rights that it lacks.
    pub lacks: Vec<(&'static str, Vec<String>)>,
}

/// This machine's time.
pub fn now() -> Time {
    Time(k8s_openapi::jiff::Timestamp::now())
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// Whether it is as it has to be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What mends it.
    pub fix: Option<String>,
}

/// What belongs together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What it is about.
    pub subject: &'static str,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Section {
    /// Whether all is as it has to be.
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.ok)
    }
}
