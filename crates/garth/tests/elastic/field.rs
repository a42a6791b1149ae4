//! A cluster without nodes, Karpenter, and an operator; for each test in its turn pools and a namespace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use garth_cluster::install::pools::{self, Autoscaler, Karpenter, Machines, Pools, RUNTIME_LABEL};
use garth_cluster_lab::{BUSYBOX, Lab};
use garth_spec::Runtime;
use serde_json::{Value, json};

use crate::stage::{Process, operator, rights};
use crate::yard::{finish, skip};

pub struct Field {
    pub lab: &'static Lab,
    namespace: String,
    _turn: MutexGuard<'static, ()>,
}

/// Pools are the whole cluster's.
static TURN: Mutex<()> = Mutex::new(());

struct Cluster {
    lab: Lab,
    /// Ends with the tests.
    _operator: Process,
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let lab = Lab::control_plane().expect("a control plane");
        lab.with_karpenter(None).expect("karpenter");
        lab.apply(&rights("default")).expect("definitions and rights");
        // What takes the place of EC2.
        lab.apply(
            "apiVersion: karpenter.kwok.sh/v1alpha1
kind: KWOKNodeClass
metadata: {name: machines}
spec: {nodeRegistrationDelay: 2s}",
        )
        .expect("machines");
        let operator = operator(&lab, "first");
        Cluster { lab, _operator: operator }
    })
}

impl Field {
    /// None where none can be had; that is said. The extras are built on demand (`tests/cluster/build extras`).
    pub fn open(test: &str) -> Option<Self> {
        if !Lab::is_possible(test) {
            skip(test, "a cluster");
            return None;
        }
        if !Lab::has_extras(test) {
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = &cluster().lab;
        Some(Self { lab, namespace: lab.namespace().expect("a namespace"), _turn: turn })
    }

    /// Garth's pools of these runtimes, of machines that there are here; each with so many processors at most.
    pub fn pools(&self, runtimes: &[Runtime], cpus: u32) {
        let karpenter =
            Karpenter { role: "nodes".to_owned(), version: "1.36".to_owned(), machines: Machines::Nested, cpus };
        let made = pools::pools(&Pools {
            cluster: "lab".to_owned(),
            runtimes: runtimes.to_vec(),
            spare: 0,
            namespace: "garth".to_owned(),
            autoscaler: Autoscaler::Karpenter(karpenter),
        });
        let list = |items: &[Value]| json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
        let (nodes, others): (Vec<_>, Vec<_>) =
            made.objects.into_iter().partition(|object| object["kind"] == "NodePool");
        // As they are, they pass the checks of Karpenter's own definitions.
        let mut try_out = self.lab.kubectl();
        let tried = finish(try_out.args(["apply", "--dry-run=server", "--filename=-"]), list(&nodes).as_bytes());
        assert_eq!(tried.code, 0, "{tried:?}");
        let classes: Vec<_> = others.into_iter().filter(|object| object["kind"] != "EC2NodeClass").collect();
        self.lab.apply(&list(&classes)).expect("classes");
        let nodes: Vec<_> = nodes.into_iter().map(of_the_lab).collect();
        self.lab.apply(&list(&nodes)).expect("pools");
    }

    /// Projects of a runtime, and a volume for each.
    pub fn projects(&self, runtime: Runtime, numbers: std::ops::Range<u32>) {
        let mut manifests = String::new();
        for number in numbers.clone() {
            let (namespace, name) = (&self.namespace, format!("{runtime}-{number}"));
            write!(
                manifests,
                "---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {namespace}-{name}}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  storageClassName: local
  hostPath: {{path: /nowhere}}
"
            )
            .expect("text");
        }
        self.lab.apply(&manifests).expect("volumes");
        self.ask(runtime, numbers, "Running");
    }

    /// Asks projects to be so.
    pub fn ask(&self, runtime: Runtime, numbers: std::ops::Range<u32>, state: &str) {
        let mut manifests = String::new();
        for number in numbers {
            write!(
                manifests,
                "---
apiVersion: garth.dev/v1alpha1
kind: Project
metadata: {{name: {runtime}-{number}, namespace: {namespace}, labels: {{runtime: {runtime}}}}}
spec:
  image: \"{BUSYBOX}\"
  runtime: {runtime}
  desiredState: {state}
  limits: {{memory: 64Mi, disk: 1Gi}}
",
                namespace = self.namespace
            )
            .expect("text");
        }
        self.lab.apply(&manifests).expect("projects");
    }

    /// What an installer does to new nodes of a runtime once it has installed it: takes the taints off that keep Pods away.
    pub fn install(&self, runtime: Runtime) {
        for (name, node) in self.nodes(runtime) {
            let startup = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
            for taint in startup.iter().filter_map(|taint| taint["key"].as_str()).filter(|key| is_startup(key)) {
                // Gone meanwhile is as good.
                let _ = self.lab.run(&["taint", "node", &name, &format!("{taint}-")]);
            }
        }
    }

    /// The nodes of a runtime.
    pub fn nodes(&self, runtime: Runtime) -> BTreeMap<String, Value> {
        self.list(&["get", "nodes", "--selector", &format!("{RUNTIME_LABEL}={runtime}")])
    }

    /// The Pods of this test.
    pub fn pods(&self) -> BTreeMap<String, Value> {
        self.list(&["get", "pods", "--namespace", &self.namespace])
    }

    /// Its projects of one runtime.
    pub fn all(&self, runtime: Runtime) -> BTreeMap<String, Value> {
        self.list(&["get", "projects", "--namespace", &self.namespace, "--selector", &format!("runtime={runtime}")])
    }

    /// How many projects of a runtime have this reason.
    pub fn count(&self, runtime: Runtime, reason: &str) -> usize {
        self.all(runtime).values().filter(|project| ready(project)["reason"] == reason).count()
    }

    /// Waits until the project's condition has this reason, and returns its message.
    #[track_caller]
    pub fn comes_to(&self, project: &str, reason: &str) -> String {
        let mut condition = Value::Null;
        self.until(&format!("{project} to be {reason}"), || {
            let all = self.list(&["get", "projects", "--namespace", &self.namespace]);
            condition = all.get(project).map(|project| ready(project).clone()).unwrap_or_default();
            condition["reason"] == reason
        });
        condition["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits for something of the cluster.
    #[track_caller]
    pub fn until(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let came = self.lab.wait_for(what, || Ok(happened()));
        assert!(came.is_ok(), "{what} never came\n{}\n{}", self.seen(), self.lab.logs());
    }

    fn list(&self, words: &[&str]) -> BTreeMap<String, Value> {
        let words: Vec<&str> = words.iter().copied().chain(["--output=json"]).collect();
        let text = self.lab.run(&words).expect("a list");
        let list: Value = serde_json::from_str(&text).expect("JSON");
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().map(|item| (item["metadata"]["name"].as_str().unwrap_or_default().to_owned(), item)).collect()
    }

    /// What there is, for a test that fails.
    fn seen(&self) -> String {
        let kinds = "nodes,nodeclaims,nodepools,projects,pods,events";
        self.lab.run(&["--namespace", &self.namespace, "get", kinds, "--output=wide"]).unwrap_or_default()
    }
}

impl Drop for Field {
    /// Leaves the next test a cluster without nodes.
    fn drop(&mut self) {
        let _ = self.lab.run(&["delete", "projects", "--all", "--timeout=120s", "--namespace", &self.namespace]);
        let _ = self.lab.run(&["delete", "nodepools", "--all", "--timeout=120s"]);
        let _ = self.lab.run(&["delete", "nodes", "--all", "--timeout=120s"]);
    }
}

/// The condition `Ready` of a project.
pub fn ready(project: &Value) -> &Value {
    let conditions = project["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready").unwrap_or(&Value::Null)
}

fn is_startup(taint: &str) -> bool {
    matches!(taint, "sysbox-runtime" | "katacontainers.io/kata-runtime")
}

/// A pool of Garth's with machines of four processors that are there at once, and go soon.
fn of_the_lab(mut pool: Value) -> Value {
    let spec = &mut pool["spec"]["template"]["spec"];
    spec["nodeClassRef"] = json!({ "group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "machines" });
    if let Some(requirements) = spec["requirements"].as_array_mut() {
        requirements.retain(|it| !it["key"].as_str().is_some_and(|key| key.starts_with("karpenter.k8s.aws/")));
        requirements.push(json!({ "key": "karpenter.kwok.sh/instance-cpu", "operator": "In", "values": ["4"] }));
    }
    pool["spec"]["disruption"]["consolidateAfter"] = json!("1s");
    pool
}
