//! What each runtime needs of its nodes.

use std::collections::BTreeMap;

use garth_spec::Runtime;
use serde::Serialize;
use serde_json::{Value, json};

/// The label, and the key of the taint, of the nodes of one runtime.
pub const RUNTIME_LABEL: &str = "garth.dev/runtime";

/// A taint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Taint {
    pub key: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<&'static str>,
    pub effect: &'static str,
}

impl Taint {
    /// What puts up with it.
    pub fn toleration(&self) -> Value {
        match self.value {
            Some(value) => json!({ "key": self.key, "operator": "Equal", "value": value, "effect": self.effect }),
            None => json!({ "key": self.key, "operator": "Exists", "effect": self.effect }),
        }
    }

    /// As the tag of a group has it.
    pub fn tag(&self) -> String {
        format!("{}:{}", self.value.unwrap_or_default(), self.effect)
    }
}

/// What one runtime needs of its nodes.
#[derive(Debug)]
pub struct Facts {
    pub runtime: Runtime,
    /// Labels that an installer sets once it is done, and its own RuntimeClass selects.
    installed: &'static [(&'static str, &'static str)],
    /// Labels by which an installer finds its nodes.
    install: &'static [(&'static str, &'static str)],
    /// What keeps Pods away until the installer, which takes it off, is done.
    pub startup: Option<Taint>,
    /// The handler in containerd's configuration; none for its default.
    pub handler: Option<&'static str>,
    /// Processors and memory of a sandbox beside what is in it.
    pub overhead: Option<[&'static str; 2]>,
}

impl Facts {
    pub fn of(runtime: Runtime) -> Self {
        match runtime {
            Runtime::Default => {
                Self { runtime, installed: &[], install: &[], startup: None, handler: None, overhead: None }
            }
            // sysbox-deploy-k8s 0.7: its DaemonSet selects `sysbox-install`, and its script labels and taints by itself;
            // but only once its Pod runs, so the taint is there from the start.
            Runtime::Sysbox => Self {
                runtime,
                installed: &[("sysbox-runtime", "running")],
                install: &[("sysbox-install", "yes")],
                startup: Some(Taint { key: "sysbox-runtime", value: Some("not-running"), effect: "NoSchedule" }),
                handler: Some("sysbox-runc"),
                overhead: None,
            },
            // kata-deploy: takes off the taints that its value `startupTaints` names. Overhead as in its RuntimeClasses.
            Runtime::Microvm => Self {
                runtime,
                installed: &[("katacontainers.io/kata-runtime", "true")],
                install: &[],
                startup: Some(Taint { key: "katacontainers.io/kata-runtime", value: None, effect: "NoSchedule" }),
                handler: Some("kata-qemu"),
                overhead: Some(["250m", "320Mi"]),
            },
        }
    }

    fn own(&self) -> &'static str {
        match self.runtime {
            Runtime::Default => "default",
            Runtime::Sysbox => "sysbox",
            Runtime::Microvm => "microvm",
        }
    }

    /// Labels that Pods ask of their node.
    pub fn selects(&self) -> BTreeMap<&'static str, &'static str> {
        [(RUNTIME_LABEL, self.own())].into_iter().chain(self.installed.iter().copied()).collect()
    }

    /// Labels of a node from its first moment on: all that Pods ask for, so that an autoscaler knows that they will be.
    pub fn labels(&self) -> BTreeMap<&'static str, &'static str> {
        self.selects().into_iter().chain(self.install.iter().copied()).collect()
    }

    /// What keeps other Pods away: of a sandbox's neighbours on a node none is the cluster's own.
    pub fn taint(&self) -> Taint {
        Taint { key: RUNTIME_LABEL, value: Some(self.own()), effect: "NoSchedule" }
    }

    /// The beginning of its IsolationClass.
    pub fn isolation(&self) -> Value {
        match self.runtime {
            Runtime::Default => json!({ "runtime": "default" }),
            Runtime::Sysbox => json!({ "runtime": "sysbox/sysbox-runc", "hostUsers": false, "user": "Root" }),
            Runtime::Microvm => json!({ "runtime": "microvm/qemu", "user": "Root" }),
        }
    }
}
