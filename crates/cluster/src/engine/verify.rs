//! Whether the boundary of a project's sandbox holds: gathers what is judged, and keeps the outcome.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use garth_spec::{Handler, ProbeReport, ProbeRequest, ProjectName, Runtime, RuntimeChoice, StartPolicy};
use garth_verify::{Verification, Verified, judged, question};
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, Full, Limited};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::net::{TcpListener, UdpSocket};

use super::error::{Error, ErrorKind};
use super::{Engine, NOTICED_WITHIN, wait};
use crate::quantity;
use crate::resources::{IsolationClass, Project, SandboxStatus, User, VERIFIED};
use crate::verify::{Facts, Machine, Made, checks};

/// What the agent needs beyond the 30 s that it gives the process.
const WITHIN: Duration = Duration::from_secs(40);
/// Bytes of a report.
const LARGEST: usize = 256 << 10;
/// Neighbours that are tried.
const NEIGHBOURS: usize = 4;

impl Engine {
    /// Runs the checks of the runtime that a project's sandbox has; a stopped project is started. The outcome is kept in an
    /// annotation of the project.
    ///
    /// # Errors
    /// When there is no sandbox to be had, its Pod cannot be read, or its agent does not answer. A check that fails is none.
    pub async fn verify(&self, name: &ProjectName) -> Result<Verification, Error> {
        self.agent(name, StartPolicy::Start).await?;
        let project = self.shared.projects.find(name)?;
        let not_running = || ErrorKind::NotRunning(name.clone());
        let sandbox = project.status.as_ref().and_then(|status| status.sandbox.clone()).ok_or_else(not_running)?;
        let address = wait::address(&project).ok_or_else(not_running)?;
        let choice: Option<RuntimeChoice> = sandbox.runtime.parse().ok();
        let port = Port::open(address).await?;
        let pods: Api<Pod> = Api::namespaced(self.shared.client.clone(), &self.shared.config.namespace);
        let mut facts = Facts {
            made: self.made(&project, &sandbox).await?,
            pod: pods.get(&sandbox.pod).await?,
            node: self.machine(sandbox.node.as_deref()).await,
            neighbours: self.neighbours(&project),
            api_server: api_server(),
            gateway: port.address,
            arrived: Vec::new(),
            disk_held: None,
        };
        let checks = checks(&facts);
        let link = self.link(&project, address).await?;
        let report = ask(link, &question(&checks)).await?;
        facts.arrived = port.arrived();
        facts.disk_held = self.usage(&project).await.map(|usage| usage.disk.is_some());
        let verification = Verification {
            runtime: facts.made.runtime,
            handler: choice.and_then(handler),
            at: jiff::Timestamp::now(),
            checks: judged(&checks, report, &facts),
        };
        self.keep(&project, &verification.summary()).await?;
        Ok(verification)
    }

    /// What the sandbox was made to be, by the class that it was made by.
    async fn made(&self, project: &Project, sandbox: &SandboxStatus) -> Result<Made, Error> {
        let class = match &sandbox.class {
            Some(name) => {
                let classes = Api::<IsolationClass>::all(self.shared.client.clone());
                let class = classes.get_opt(name).await?.ok_or_else(|| {
                    // Nobody can say any more what was promised.
                    ErrorKind::RuntimeUnavailable(format!("the IsolationClass {name} that it was made by is gone"))
                })?;
                Some(class.spec)
            }
            None => None,
        };
        let limits = &project.spec.limits;
        Ok(Made {
            runtime: sandbox.runtime.parse().map_or(Runtime::Default, RuntimeChoice::runtime),
            user: class.as_ref().map_or(User::default(), |class| class.user),
            user_namespace: sandbox.user_namespace,
            runtime_class: class.and_then(|class| class.runtime_class_name),
            memory: quantity::bytes(&limits.memory),
            cpus: quantity::cpus(&limits.cpus),
            disk: project.spec.disk.path.clone(),
        })
    }

    async fn machine(&self, node: Option<&str>) -> Result<Machine, String> {
        let name = node.ok_or("its Pod has no node")?;
        let node = Api::<Node>::all(self.shared.client.clone()).get(name).await;
        let status = node.map_err(|error| format!("the node cannot be read: {error}"))?.status.unwrap_or_default();
        let addresses = status.addresses.iter().flatten().filter_map(|one| one.address.parse().ok()).collect();
        let info = status.node_info.unwrap_or_default();
        Ok(Machine { boot_id: info.boot_id, kernel: info.kernel_version, addresses })
    }

    fn neighbours(&self, own: &Project) -> Vec<IpAddr> {
        let others = self.list().into_iter().filter(|project| project.uid() != own.uid());
        others.filter_map(|project| wait::address(&project)).take(NEIGHBOURS).collect()
    }

    async fn keep(&self, project: &Project, verified: &Verified) -> Result<(), Error> {
        let kept = json!(verified).to_string();
        let patch = json!({ "metadata": { "annotations": { VERIFIED: kept } } });
        self.api().patch(&project.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        // Who asks next is to see it.
        let is_kept = |there: &Project| there.annotations().get(VERIFIED) == Some(&kept);
        self.shared.projects.shows(project, NOTICED_WITHIN, is_kept).await.map(drop)
    }
}

fn handler(choice: RuntimeChoice) -> Option<Handler> {
    match choice {
        RuntimeChoice::Only(handler) => Some(handler),
        RuntimeChoice::Any(_) => None,
    }
}

/// What the last look at a project's boundary came to; none before the first.
pub fn verified(project: &Project) -> Option<Verified> {
    serde_json::from_str(project.annotations().get(VERIFIED)?).ok()
}

/// As the kubelet tells every Pod (kubernetes.io, Accessing the Kubernetes API from a Pod).
fn api_server() -> Option<SocketAddr> {
    let variable = |name| std::env::var(name).ok();
    let host: IpAddr = variable("KUBERNETES_SERVICE_HOST")?.parse().ok()?;
    Some(SocketAddr::new(host, variable("KUBERNETES_SERVICE_PORT")?.parse().ok()?))
}

/// A port of the gateway's own, on the address that faces a sandbox. Closed when dropped.
struct Port {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Port {
    async fn open(facing: IpAddr) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::because(ErrorKind::Agent, error).doing("the check needs a port");
        let any: IpAddr = if facing.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let route = UdpSocket::bind((any, 0)).await.map_err(failed)?;
        // Sends nothing: the kernel says which of its addresses it would send from.
        route.connect((facing, 9)).await.map_err(failed)?;
        let own = route.local_addr().map_err(failed)?.ip();
        let listener = TcpListener::bind((own, 0)).await.and_then(TcpListener::into_std).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    fn arrived(&self) -> Vec<SocketAddr> {
        std::iter::from_fn(|| self.listener.accept().ok()).map(|(_, peer)| peer).collect()
    }
}

async fn ask(link: super::Link, question: &ProbeRequest) -> Result<ProbeReport, Error> {
    let agent = |error: Box<dyn std::error::Error + Send + Sync>| Error::because(ErrorKind::Agent, error);
    let words = serde_json::to_vec(question).map_err(|error| agent(error.into()))?;
    let body = Full::new(words.into()).map_err(|never| match never {}).boxed_unsync();
    let request = Request::post("/garth/probe").header(CONTENT_TYPE, "application/json").body(body);
    let request = request.map_err(|error| agent(error.into()))?;
    let answer = async {
        let answer = link.send(request).await.map_err(super::link::Unanswered::into_error)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(agent)?.to_bytes();
        match status.is_success() {
            true => serde_json::from_slice(&body).map_err(|error| agent(error.into())),
            false => Err(agent(format!("the probe was answered with {status}").into())),
        }
    };
    tokio::time::timeout(WITHIN, answer).await.map_err(|late| agent(late.into()))?
}
