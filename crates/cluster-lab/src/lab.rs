//! The fixture: a cluster that starts when it is made and is gone when it is dropped.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::binaries::{Part, missing};
use crate::certificates::Authority;
use crate::component::{Component, Running, log_tail};
use crate::extras::extras;
use crate::kubeconfig::{bearer, certified, kubeconfig};
use crate::place::{Lasts, Place};
use crate::wait::wait_for;
use crate::{control_plane, node};

/// How long a component may take to be of use on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster.
pub struct Lab {
    // Before `running`: the programs end with it, and are then waited for.
    place: Place,
    running: Mutex<BTreeMap<Component, Running>>,
    bin: PathBuf,
    authority: Authority,
    server: String,
    admin: PathBuf,
    named: AtomicU32,
}

impl Lab {
    /// Whether one can run here. If not it says so, by the name of the test that is to be skipped.
    pub fn is_possible(test: &str) -> bool {
        let missing = missing(Part::Cluster);
        if let Some(missing) = &missing {
            eprintln!("SKIP {test}: {missing}");
        }
        missing.is_none()
    }

    /// Without a node: Pods stay pending.
    pub fn control_plane() -> Result<Self> {
        Self::start(Lasts::WithItsOwner)
    }

    /// With a real node, named [`NODE`](crate::NODE).
    pub fn with_node() -> Result<Self> {
        let lab = Self::control_plane()?;
        lab.add_node()?;
        Ok(lab)
    }

    /// A control plane, in a place that lasts as said.
    pub fn start(lasts: Lasts) -> Result<Self> {
        let (bin, complete) = Part::Cluster.find()?;
        if !complete {
            bail!("{} is not complete: run tests/cluster/build", bin.display());
        }
        let place = Place::take(lasts)?;
        let authority = Authority::new(place.state().join("certificates")).context("certificates")?;
        let server = format!("https://{}", place.node_address());
        let admin = place.state().join("admin.kubeconfig");
        let lab = Self { place, running: Mutex::default(), bin, authority, server, admin, named: AtomicU32::new(0) };
        lab.write_user(&lab.admin, "admin", Some("system:masters"))?;
        control_plane::prepare(&lab.place, &lab.authority, &lab.server).context("files of the control plane")?;
        lab.start_component(Component::Etcd)?;
        lab.start_component(Component::ApiServer)?;
        lab.start_component(Component::ControllerManager)?;
        lab.start_component(Component::Scheduler)?;
        let account = ["get", "serviceaccount", "default", "--namespace=default"];
        lab.wait_for("the first service account", || Ok(lab.run(&account).is_ok()))?;
        lab.apply(include_str!("manifests/classes.yaml"))?;
        Ok(lab)
    }

    /// Makes a node of the machine.
    pub fn add_node(&self) -> Result<()> {
        node::prepare(&self.place, &self.authority, &self.server, &self.bin).context("files of the node")?;
        self.start_component(Component::Containerd)?;
        self.import(&crate::Image::pause(&self.bin))?;
        self.import(&crate::Image::busybox(&self.bin)?)?;
        self.start_component(Component::Kubelet)?;
        self.apply(&node::volumes(&self.place)?)
    }

    /// Starts one that does not run, and waits until it is of use.
    pub fn start_component(&self, component: Component) -> Result<()> {
        let (place, authority) = (&self.place, &self.authority);
        let arguments = match component {
            Component::Etcd => control_plane::etcd(place),
            Component::ApiServer => control_plane::api_server(place, authority),
            Component::ControllerManager => control_plane::controller_manager(authority),
            Component::Scheduler => control_plane::scheduler(authority),
            Component::Containerd => node::containerd(place),
            Component::Kubelet => node::kubelet(place, authority),
            Component::Kwok | Component::Karpenter | Component::AgentSandbox => self.extra_arguments(component)?,
        };
        let mut already = self.running();
        ensure!(already.get_mut(&component).is_none_or(|old| old.check(place).is_err()), "{component:?} runs already");
        drop(already);
        let bin = if component.is_extra() { &extras()? } else { &self.bin };
        let running = Running::start(place, bin, component, &arguments)?;
        self.running().insert(component, running);
        match component {
            Component::ApiServer => self
                .wait_for("the API server", || Ok(self.run(&["get", "--raw=/readyz", "--request-timeout=2s"]).is_ok())),
            Component::Containerd => {
                self.wait_for("containerd", || Ok(self.ctr(&["version"]).output()?.status.success()))
            }
            Component::Kubelet => self.wait_for("the node", || node::is_ready(self)),
            // Each retries until what it needs is there; whoever needs it, waits for what it does.
            _ => Ok(()),
        }
    }

    /// Kills one as a crash would. What depends on it is left to notice.
    pub fn kill_component(&self, component: Component) -> Result<()> {
        let running = self.running().remove(&component);
        running.with_context(|| format!("{} does not run", component.program()))?.kill(&self.place)
    }

    /// Kills one and starts it again.
    pub fn restart_component(&self, component: Component) -> Result<()> {
        self.kill_component(component)?;
        self.start_component(component)
    }

    /// Where the API server is: an URL that the whole machine reaches.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The kubeconfig of one who may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// A kubeconfig of a user, of at most one group, who may do what RBAC objects say: at first nothing.
    pub fn user(&self, name: &str, group: Option<&str>) -> Result<PathBuf> {
        let path = self.place.state().join(format!("user-{}.kubeconfig", self.count()));
        self.write_user(&path, name, group)?;
        Ok(path)
    }

    /// A kubeconfig of a service account that is there: what a Pod of that account may do.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.run(&["create", "token", "--namespace", namespace, "--duration=8h", name])?;
        let path = self.place.state().join(format!("user-{}.kubeconfig", self.count()));
        self.write_kubeconfig(&path, &bearer(token.trim()))?;
        Ok(path)
    }

    /// A new Kubernetes namespace, for one test.
    pub fn namespace(&self) -> Result<String> {
        let name = format!("test-{}", self.count());
        self.run(&["create", "namespace", &name])?;
        // Pods are refused in one that has no service account yet.
        let account = ["get", "serviceaccount", "default", "--namespace", &name];
        self.wait_for("its service account", || Ok(self.run(&account).is_ok()))?;
        Ok(name)
    }

    /// The machine as Pods reach it: where a daemon under test listens for them.
    pub fn machine_address(&self) -> String {
        self.place.machine_address()
    }

    /// A folder on the machine that goes with the lab.
    pub fn state(&self) -> &Path {
        self.place.state()
    }

    /// A program in the lab's namespaces, where the node's processes and mounts are seen. Not needed to reach anything.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.place.command(program)
    }

    /// A built program of the cluster, such as `kubectl`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The client of containerd, in the namespace that the kubelet uses.
    pub fn ctr(&self, words: &[&str]) -> Command {
        let mut command = self.command(self.program("ctr"));
        command.args(["--namespace=k8s.io"]).args(words);
        command
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let components: Vec<Component> = self.running().keys().copied().collect();
        components.into_iter().map(|component| log_tail(&self.place, component)).collect()
    }

    /// Waits, and fails early with the log of a component that ended.
    pub fn wait_for(&self, what: &str, mut happened: impl FnMut() -> Result<bool>) -> Result<()> {
        let waited = wait_for(what, PATIENCE, || {
            self.running().values_mut().try_for_each(|running| running.check(&self.place))?;
            happened()
        });
        waited.map_err(|error| anyhow!("{error:#}\n{}", self.logs()))
    }

    /// Leaves a cluster running that was started to last.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    fn write_user(&self, path: &Path, name: &str, group: Option<&str>) -> Result<()> {
        let user = self.authority.user(name, group).context("a user")?;
        self.write_kubeconfig(path, &certified(&user))
    }

    fn write_kubeconfig(&self, path: &Path, user: &serde_json::Value) -> Result<()> {
        let config = kubeconfig(&self.server, self.authority.certificate(), user);
        std::fs::write(path, config).with_context(|| path.display().to_string())
    }

    fn count(&self) -> u32 {
        self.named.fetch_add(1, Ordering::Relaxed)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Component, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}
