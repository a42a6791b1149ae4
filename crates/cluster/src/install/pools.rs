//! Nodes for each runtime, made by an autoscaler when projects need them: pools, the classes that lead to them, room to
//! spare. Pure: what is chosen in, objects out.
//!
//! An autoscaler that has no node of a pool knows it by its template alone. So a pool's template carries each label that
//! the runtime's Pods select, also those that an installer sets later, and a taint keeps Pods away until it has; both come
//! from one table (`facts`), from which the classes are made too.

mod eksctl;
mod facts;
mod karpenter;
mod spare;
#[cfg(test)]
mod tests;

use garth_spec::Runtime;
use serde_json::{Value, json};

use facts::Facts;
pub use facts::RUNTIME_LABEL;

/// What of the pools is chosen.
#[derive(Debug, Clone)]
pub struct Pools {
    /// The cluster's name at its provider.
    pub cluster: String,
    /// The runtimes that get a pool each.
    pub runtimes: Vec<Runtime>,
    /// Placeholders for each runtime: so many projects start without waiting for a node.
    pub spare: u32,
    /// Where placeholders are.
    pub namespace: String,
    /// Who makes nodes.
    pub autoscaler: Autoscaler,
}

/// Who makes nodes.
#[derive(Debug, Clone)]
pub enum Autoscaler {
    /// Karpenter: pools are objects of the cluster.
    Karpenter(Karpenter),
    /// Cluster Autoscaler: pools are groups of the provider's, which eksctl makes.
    ClusterAutoscaler(Groups),
}

/// What Karpenter needs to know.
#[derive(Debug, Clone)]
pub struct Karpenter {
    /// The IAM role of the nodes.
    pub role: String,
    /// The cluster's version, such as `1.34`: nodes with Sysbox have an image for each.
    pub version: String,
    /// What microVMs run on.
    pub machines: Machines,
    /// Processors of one pool at most.
    pub cpus: u32,
}

/// Machines on which a microVM has KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machines {
    /// Virtual ones that pass virtualization on (C8i, M8i, R8i).
    Nested,
    /// Whole ones: large, and slow to boot.
    Metal,
}

/// What groups need to know.
#[derive(Debug, Clone)]
pub struct Groups {
    /// The region.
    pub region: String,
    /// A group in each: a disk is in one zone, and so is the node that it needs.
    pub zones: Vec<String>,
    /// Nodes of one group at most.
    pub nodes: u32,
}

/// What is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// For `kubectl apply`.
    pub objects: Vec<Value>,
    /// For `eksctl create nodegroup`.
    pub groups: Option<Value>,
}

/// Gibibytes of a node's own disk: images, and what sandboxes write outside their disks, which is 4 GiB each. A node has no
/// more sandboxes than its disk has room for.
const DISK: u32 = 100;
/// The same of a whole machine, whose memory has room for many more.
const LARGE_DISK: u32 = 800;

/// Pools, and what leads to them.
pub fn pools(pools: &Pools) -> Made {
    let facts: Vec<Facts> = pools.runtimes.iter().map(|&runtime| Facts::of(runtime)).collect();
    let mut objects = Vec::new();
    for facts in &facts {
        objects.extend(runtime_class(facts));
        objects.push(isolation_class(facts));
    }
    let groups = match &pools.autoscaler {
        Autoscaler::Karpenter(karpenter) => {
            let made = facts.iter().flat_map(|facts| karpenter::pool(pools, karpenter, facts));
            objects.extend(made);
            None
        }
        Autoscaler::ClusterAutoscaler(groups) => Some(eksctl::groups(pools, groups, &facts)),
    };
    if pools.spare > 0 {
        objects.push(spare::priority());
        objects.extend(facts.iter().map(|facts| spare::placeholders(pools, facts)));
    }
    Made { objects, groups }
}

/// `garth-sysbox`.
fn name(facts: &Facts) -> String {
    format!("garth-{}", facts.runtime)
}

/// The RuntimeClass that has the scheduler, and with it the autoscaler, take the runtime's nodes. Under a name of our own:
/// the installers bring classes, too, which know nothing of pools.
fn runtime_class(facts: &Facts) -> Option<Value> {
    let handler = facts.handler?;
    let mut class = json!({
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": { "name": name(facts) },
        "handler": handler,
        "scheduling": { "nodeSelector": facts.selects(), "tolerations": [facts.taint().toleration()] },
    });
    if let Some([cpu, memory]) = facts.overhead {
        class["overhead"] = json!({ "podFixed": { "cpu": cpu, "memory": memory } });
    }
    Some(class)
}

fn isolation_class(facts: &Facts) -> Value {
    let mut spec = facts.isolation();
    spec["priority"] = json!(10);
    match facts.handler {
        Some(_) => spec["runtimeClassName"] = json!(name(facts)),
        // The cluster's own runtime has no class that would say where it runs.
        None => {
            spec["nodeSelector"] = json!(facts.selects());
            let taint = facts.taint();
            spec["tolerations"] = json!([{ "key": taint.key, "value": taint.value, "effect": taint.effect }]);
        }
    }
    json!({
        "apiVersion": "garth.dev/v1alpha1",
        "kind": "IsolationClass",
        "metadata": { "name": name(facts) },
        "spec": spec,
    })
}
