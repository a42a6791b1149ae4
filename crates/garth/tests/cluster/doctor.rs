//! What `garth doctor --cluster` says of a cluster, to users who may see more or less of it.

use std::path::Path;
use std::process::Command;

use crate::stage::{HOME, Stage};
use crate::yard::{Done, finish, program};

fn doctor(stage: &Stage, kubeconfig: &Path, more: &[&str]) -> Done {
    let mut command = Command::new(program());
    command.args(["doctor", "--cluster", "--projects", &stage.namespace]).args(more);
    finish(command.env("KUBECONFIG", kubeconfig), b"")
}

#[test]
fn doctor_says_what_a_cluster_has_and_lacks() {
    // Classes are the whole cluster's.
    let Some(stage) = Stage::alone("doctor_says_what_a_cluster_has_and_lacks") else { return };
    let class = "apiVersion: garth.dev/v1alpha1
kind: IsolationClass
metadata: {name: without}
spec: {runtime: microvm/cloud-hypervisor, runtimeClassName: installed-nowhere}
---
apiVersion: garth.dev/v1alpha1
kind: IsolationClass
metadata: {name: on-the-node}
spec: {runtime: microvm/qemu, runtimeClassName: kata-qemu}";
    stage.apply(class);
    stage.ok(&["create", "web", "--memory", "64MiB", "--disk", "1GiB"]);
    let done = doctor(&stage, stage.lab.kubeconfig(), &[]);
    let text = done.text();
    let json = doctor(&stage, stage.lab.kubeconfig(), &["--json"]).stdout;
    stage.kubectl(&["delete", "isolationclass", "without", "on-the-node"]);
    // In the tests operator and gateway run beside the cluster.
    assert_eq!(done.code, 8, "{text}");
    for line in [
        "API server: works",
        "definitions: works",
        "  no  microvm/cloud-hypervisor by the class without: the RuntimeClass installed-nowhere is not there",
        "  ok  microvm/qemu by the class on-the-node: RuntimeClass kata-qemu, 1 of 1 nodes are ready with",
        "  ok  default StorageClass: local, WaitForFirstConsumer",
        "  no  replicas: there is no Deployment garth-gateway in the namespace garth",
        "      fix: garth cluster manifests",
        "  ok  of the operator: admin may do all that it needs",
        "  ok  of the gateway: admin may do all that it needs",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(text.contains(": enforces the Pod Security Standard restricted"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("  ok  leader: ")), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!((&json["cluster"][0]["subject"], &json["cluster"][0]["ok"]), (&"API server".into(), &true.into()));
}

#[test]
fn doctor_says_what_the_user_may_not() {
    let Some(stage) = Stage::open("doctor_says_what_the_user_may_not") else { return };
    let nobody = stage.lab.user("nobody", None).expect("a user");
    let text = doctor(&stage, &nobody, &[]).text();
    assert!(text.contains("of the gateway: nobody may not get projects, list projects"), "{text}");
    assert!(text.contains("no  definitions: cannot be looked at: "), "{text}");
    // An account of Garth's is asked for its own rights alone.
    let gateway = stage.lab.service_account(HOME, "garth-gateway").expect("an account");
    let text = doctor(&stage, &gateway, &[]).text();
    assert!(text.contains("ok  of the gateway: ") && !text.contains("of the operator: "), "{text}");
    let done = doctor(&stage, Path::new("/nonexistent/kubeconfig"), &[]);
    assert_eq!(done.code, 7, "{done:?}");
}
