//! Runtimes on a cluster: the class that carries one out, and nothing weaker. The handlers of this cluster are runc under
//! other names: what is tested is which one a Pod gets, and that its files stay.

use crate::stage::Stage;

const SYSBOX: &str = "apiVersion: garth.dev/v1alpha1
kind: IsolationClass
metadata: {name: sysbox}
spec: {runtime: sysbox/sysbox-runc, runtimeClassName: sysbox-runc, hostUsers: false, user: Root}
---
apiVersion: garth.dev/v1alpha1
kind: IsolationClass
metadata: {name: microvm-firecracker}
spec: {runtime: microvm/firecracker, runtimeClassName: no-such-class, priority: 10}
";

#[test]
fn a_change_of_runtime_keeps_the_disk() {
    let Some(stage) = Stage::open("a_change_of_runtime_keeps_the_disk") else { return };
    stage.apply(SYSBOX);
    // Root of a user namespace is more than the restricted standard lets be.
    let allowed =
        ["label", "--overwrite", "namespace", &stage.namespace, "pod-security.kubernetes.io/enforce=baseline"];
    stage.lab.run(&allowed).expect("a label");
    stage.ok(&["create", "web", "--memory", "64MiB", "--disk", "1GiB"]);
    stage.sh("web", "echo heron > note");
    stage.ok(&["set", "web", "--runtime", "sysbox"]);
    assert_eq!(stage.ok(&["ls", "-a", "-q"]), "web");
    let inside = stage.sh("web", "id -u; cat note; head -1 /proc/self/uid_map; echo by root >> note");
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!(&lines[..2], ["0", "heron"]);
    assert!(!lines[2].split_whitespace().eq(["0", "0", "4294967295"]), "root is the node's root: {inside}");
    let pod = stage.kubectl(&["get", "pod", "web", "-o=jsonpath={.spec.runtimeClassName} {.spec.hostUsers}"]);
    assert_eq!(pod, "sysbox-runc false");
    let shown = stage.json(&["inspect", "web"]);
    let shown = shown.as_array().map_or(&shown, |list| &list[0]);
    assert_eq!(shown["runtime"]["handler"], "sysbox/sysbox-runc", "{shown}");
    stage.ok(&["set", "web", "--runtime", "default"]);
    assert_eq!(stage.sh("web", "id -u; cat note"), "1000\nheron\nby root");
}

#[test]
fn a_runtime_that_the_cluster_has_not_is_said_at_once() {
    let Some(stage) = Stage::open("a_runtime_that_the_cluster_has_not_is_said_at_once") else { return };
    stage.apply(SYSBOX);
    // A handler that no other test of this cluster brings.
    stage.ok(&["create", "web", "--runtime", "microvm/firecracker"]);
    let said = stage.refused(&["start", "web"], "runtime_unavailable");
    assert!(said.contains("no-such-class"), "{said}");
    assert!(stage.kubectl(&["get", "pods", "-o=name"]).is_empty());
    stage.refused(&["create", "weak", "--runtime", "default", "--at-least", "sysbox"], "runtime_too_weak");
    stage.ok(&["create", "strong", "--at-least", "sysbox"]);
    let shown = stage.kubectl(&["get", "project", "strong", "-o=jsonpath={.spec.runtime}"]);
    assert_eq!(shown, "sysbox");
}
