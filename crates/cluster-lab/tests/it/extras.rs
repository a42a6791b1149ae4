//! Fake nodes, and clusters that grow.

use std::sync::OnceLock;

use garth_cluster_lab::Lab;

fn lab(test: &str) -> Option<&'static Lab> {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let possible = Lab::is_possible(test) && Lab::has_extras(test);
    possible.then(|| {
        LAB.get_or_init(|| {
            let lab = Lab::control_plane().expect("a control plane");
            lab.with_karpenter(None).expect("karpenter");
            lab
        })
    })
}

/// A Pod for nodes whose label `pool` has this value.
fn pod(namespace: &str, pool: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {pool}, namespace: {namespace}}}
spec:
  nodeSelector: {{pool: {pool}}}
  tolerations: [{{operator: Exists}}]
  containers: [{{name: main, image: none}}]"
    )
}

fn wait_ready(lab: &Lab, namespace: &str, name: &str) {
    let waited = lab.run(&["wait", "--for=condition=Ready", "--timeout=120s", "--namespace", namespace, "pod", name]);
    waited.unwrap_or_else(|error| panic!("{error:#}\n{}", lab.logs()));
}

#[test]
fn a_fake_node_runs_what_is_put_on_it() {
    let Some(lab) = lab("a_fake_node_runs_what_is_put_on_it") else { return };
    let namespace = lab.namespace().expect("a namespace");
    lab.apply(&pod(&namespace, "by-hand")).expect("a pod");
    let reason = "--output=jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}";
    lab.wait_for("the lack of a node", || {
        Ok(lab.run(&["get", "pod", "--namespace", &namespace, "by-hand", reason])? == "Unschedulable")
    })
    .expect("it waits for a node");
    lab.add_fake_node("by-hand", &[("pool", "by-hand")]).expect("a node");
    wait_ready(lab, &namespace, "by-hand");
}

#[test]
fn karpenter_makes_a_node_for_a_pod_that_has_none() {
    let Some(lab) = lab("karpenter_makes_a_node_for_a_pod_that_has_none") else { return };
    let namespace = lab.namespace().expect("a namespace");
    lab.apply(
        "apiVersion: karpenter.kwok.sh/v1alpha1
kind: KWOKNodeClass
metadata: {name: default}
spec: {nodeRegistrationDelay: 1s}
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: grown}
spec:
  template:
    metadata: {labels: {pool: grown}}
    spec:
      requirements: [{key: karpenter.sh/capacity-type, operator: In, values: [on-demand]}]
      nodeClassRef: {group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default}",
    )
    .expect("a pool");
    lab.apply(&pod(&namespace, "grown")).expect("a pod");
    wait_ready(lab, &namespace, "grown");
    let claims = lab.run(&["get", "nodeclaims", "--output=name"]).expect("claims");
    assert!(claims.contains("nodeclaim.karpenter.sh/grown-"), "{claims}");
    let events = ["get", "events", "--namespace", &namespace, "--field-selector=reason=Nominated"];
    assert!(lab.run(&events).expect("events").contains("Pod should schedule on"), "it was nominated");
}

#[test]
fn the_controller_of_agent_sandbox_makes_pods() {
    let Some(lab) = lab("the_controller_of_agent_sandbox_makes_pods") else { return };
    lab.with_agent_sandbox().expect("its controller");
    let namespace = lab.namespace().expect("a namespace");
    lab.add_fake_node("sandboxes", &[("pool", "sandboxes")]).expect("a node");
    lab.apply(&format!(
        "apiVersion: agents.x-k8s.io/v1beta1
kind: Sandbox
metadata: {{name: box, namespace: {namespace}}}
spec:
  podTemplate:
    spec:
      nodeSelector: {{pool: sandboxes}}
      containers: [{{name: main, image: none}}]"
    ))
    .expect("a sandbox");
    lab.wait_for("its pod", || Ok(lab.run(&["get", "pod", "--namespace", &namespace, "box"]).is_ok())).expect("a pod");
    wait_ready(lab, &namespace, "box");
}
