//! Fake nodes and what makes them: kwok, Karpenter with kwok's nodes for machines, the controller of agent-sandbox.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::Lab;
use crate::binaries::{Part, missing};
use crate::certificates::path_text;
use crate::component::Component;
use crate::control_plane::flags;

/// Annotates a Node that kwok plays.
pub const FAKE: (&str, &str) = ("kwok.x-k8s.io/node", "fake");

impl Lab {
    /// Whether the extras are there. If not it says so, by the name of the test that is to be skipped.
    pub fn has_extras(test: &str) -> bool {
        let missing = missing(Part::Extras);
        if let Some(missing) = &missing {
            eprintln!("SKIP {test}: {missing}");
        }
        missing.is_none()
    }

    /// Starts kwok: Nodes annotated with [`FAKE`] become ready, and Pods on them run at once. The real node is not touched.
    pub fn with_kwok(&self) -> Result<()> {
        self.start_component(Component::Kwok)
    }

    /// A node that kwok plays, with these labels.
    pub fn add_fake_node(&self, name: &str, labels: &[(&str, &str)]) -> Result<()> {
        let mut all =
            json!({ "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64" });
        for (label, value) in labels {
            all[label] = json!(value);
        }
        let amounts = json!({ "cpu": "32", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "110" });
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name, "labels": all, "annotations": { FAKE.0: FAKE.1 } },
            "status": { "allocatable": amounts, "capacity": amounts },
        });
        self.apply(&node.to_string())?;
        self.run(&["wait", "--for=condition=Ready", "--timeout=60s", "node", name]).map(drop)
    }

    /// Starts Karpenter (and kwok), whose machines are fake nodes of these instance types: a JSON file as in the examples
    /// of its kwok provider, or its own list. NodePools and the KWOKNodeClass are the test's to make.
    pub fn with_karpenter(&self, instance_types: Option<&Path>) -> Result<()> {
        self.apply_folder("karpenter-crds")?;
        let types = self.state().join("instance-types.json");
        if let Some(path) = instance_types {
            std::fs::copy(path, &types).with_context(|| path.display().to_string())?;
        }
        self.with_kwok()?;
        self.start_component(Component::Karpenter)
    }

    /// Starts the controller of agent-sandbox, of `extensions.agents.x-k8s.io` too.
    pub fn with_agent_sandbox(&self) -> Result<()> {
        self.apply_folder("agent-sandbox-crds")?;
        // Between their versions a webhook would convert, behind a Service that nobody here routes to. Use the stored ones.
        let plain = r#"{"spec":{"conversion":{"strategy":"None","webhook":null}}}"#;
        let folder = path_text(&extras()?.join("agent-sandbox-crds"));
        self.run(&["patch", "--type=merge", "--patch", plain, "--filename", &folder])?;
        self.start_component(Component::AgentSandbox)
    }

    /// Custom resources, which are then served.
    fn apply_folder(&self, name: &str) -> Result<()> {
        let folder = path_text(&extras()?.join(name));
        self.run(&["apply", "--server-side", "--filename", &folder])?;
        self.run(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", &folder]).map(drop)
    }

    /// What a component of these is told.
    pub(crate) fn extra_arguments(&self, component: Component) -> Result<Vec<String>> {
        Ok(match component {
            Component::Kwok => flags([
                ("config", path_text(&extras()?.join("kwok-stages.yaml"))),
                ("manage-nodes-with-annotation-selector", format!("{}={}", FAKE.0, FAKE.1)),
                ("node-lease-duration-seconds", "40".to_owned()),
            ]),
            Component::Karpenter => {
                let mut arguments = flags([
                    ("disable-leader-election", "true".to_owned()),
                    ("metrics-port", "18080".to_owned()),
                    ("health-probe-port", "18081".to_owned()),
                ]);
                let types = self.state().join("instance-types.json");
                if types.exists() {
                    arguments.extend(flags([("instance-types-file-path", path_text(&types))]));
                }
                arguments
            }
            Component::AgentSandbox => flags([
                ("extensions", "true".to_owned()),
                ("leader-elect", "false".to_owned()),
                // The API server would reach it by a Service.
                ("enable-webhook", "false".to_owned()),
                ("metrics-bind-address", "127.0.0.1:18082".to_owned()),
                ("health-probe-bind-address", "127.0.0.1:18083".to_owned()),
            ]),
            other => bail!("{} is none of the extras", other.program()),
        })
    }
}

/// The folder of their programs.
pub fn extras() -> Result<PathBuf> {
    let (folder, complete) = Part::Extras.find()?;
    if !complete {
        bail!("{} is not complete: run tests/cluster/build extras", folder.display());
    }
    Ok(folder)
}
