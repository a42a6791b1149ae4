//! Room to spare: Pods that do nothing, have the size of a project, and make way for one.

use serde_json::{Value, json};

use super::facts::Facts;
use super::{Pools, name};

/// The lowest priority for which Cluster Autoscaler still makes nodes (its `--expendable-pods-priority-cutoff`).
const PRIORITY: i32 = -10;

/// What the smallest Pod that does nothing is made of.
const PAUSE: &str = "registry.k8s.io/pause:3.10";

/// The priority of what every Pod may push aside, and which pushes none aside itself.
pub fn priority() -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": { "name": "garth-spare" },
        "value": PRIORITY,
        "preemptionPolicy": "Never",
        "description": "Keeps room on the nodes of Garth's runtimes.",
    })
}

/// As many as projects of the default size are to start at once.
pub fn placeholders(pools: &Pools, facts: &Facts) -> Value {
    let labels = json!({ "garth.dev/spare": facts.runtime.to_string() });
    // On the nodes of its runtime, and by the plain runtime: what is kept free is room, and not a machine that is started.
    let spec = json!({
        "priorityClassName": "garth-spare",
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "nodeSelector": facts.selects(),
        "tolerations": [facts.taint().toleration()],
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": "room",
            "image": PAUSE,
            "resources": { "requests": size(facts) },
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
        }],
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": format!("{}-spare", name(facts)), "namespace": pools.namespace, "labels": labels },
        "spec": {
            "replicas": pools.spare,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": spec },
        },
    })
}

/// A project's requests where it says nothing, and its runtime's overhead.
fn size(facts: &Facts) -> Value {
    match facts.overhead {
        Some(_) => json!({ "cpu": "300m", "memory": "2368Mi", "ephemeral-storage": "4Gi" }),
        None => json!({ "cpu": "50m", "memory": "2Gi", "ephemeral-storage": "4Gi" }),
    }
}
