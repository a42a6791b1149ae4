//! Whether a boundary holds, looked at on a cluster whose network plugin carries no NetworkPolicy out, and whose RuntimeClasses
//! all lead to runc: what is wrong here has to be found.

use serde_json::Value;

use crate::stage::Stage;

/// The ids of the checks that fail.
#[track_caller]
fn failed(stage: &Stage, name: &str) -> Vec<String> {
    let outcome = stage.json(&["verify", name]);
    let checks = outcome["checks"].as_array().unwrap_or_else(|| panic!("no checks: {outcome}"));
    let failed = checks.iter().filter(|check| check["passed"] == false);
    let failed: Vec<String> = failed.filter_map(|check| check["id"].as_str().map(str::to_owned)).collect();
    assert_eq!(outcome["passed"].as_bool(), Some(failed.is_empty()), "{outcome}");
    let shown = stage.json(&["inspect", name]);
    let shown = shown.as_array().map_or(&shown, |list| &list[0]);
    assert_eq!(shown["verified"]["failed"], Value::from(failed.clone()), "{outcome}");
    failed
}

/// A network plugin that carries the policies out, for one sandbox: nothing that it begins gets to its node, beyond that, or to another Pod.
struct Enforced<'a>(&'a Stage);

impl<'a> Enforced<'a> {
    fn on(stage: &'a Stage, name: &str) -> Self {
        let address = stage.kubectl(&["get", "pod", name, "-o=jsonpath={.status.podIP}"]);
        let rules = format!(
            "add table inet enforced; add table bridge enforced
             add chain inet enforced node {{ type filter hook input priority 0; }}
             add chain inet enforced beyond {{ type filter hook forward priority 0; }}
             add chain bridge enforced pods {{ type filter hook forward priority 0; }}
             add rule inet enforced node ip saddr {address} ct state new drop
             add rule inet enforced beyond ip saddr {address} ct state new drop
             add rule bridge enforced pods ip saddr {address} drop"
        );
        let enforced = Self(stage);
        enforced.nft(&rules);
        enforced
    }

    fn nft(&self, rules: &str) {
        let done = self.0.lab.command("nft").arg(rules).output().expect("nft");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Enforced<'_> {
    fn drop(&mut self) {
        self.nft("delete table inet enforced; delete table bridge enforced");
    }
}

#[test]
fn what_a_cluster_does_not_carry_out_is_found() {
    let Some(stage) = Stage::open("what_a_cluster_does_not_carry_out_is_found") else { return };
    for name in ["web", "other"] {
        stage.ok(&["create", name, "--memory", "64MiB", "--disk", "1GiB"]);
        stage.ok(&["start", name]);
    }
    // Its disks are directories of the node, which hold nobody to a limit.
    assert_eq!(failed(&stage, "web"), ["network-policy", "neighbours", "node", "disk-limit"]);
    let enforced = Enforced::on(&stage, "web");
    assert_eq!(failed(&stage, "web"), ["disk-limit"]);
    drop(enforced);
}

#[test]
fn a_microvm_that_is_a_container_is_found() {
    let Some(stage) = Stage::open("a_microvm_that_is_a_container_is_found") else { return };
    let class = "apiVersion: garth.dev/v1alpha1
kind: IsolationClass
metadata: {name: kata}
spec: {runtime: microvm/qemu, runtimeClassName: kata-qemu}
";
    stage.apply(class);
    stage.ok(&["create", "web", "--runtime", "microvm", "--memory", "64MiB", "--disk", "1GiB"]);
    let failed = failed(&stage, "web");
    assert!(failed.contains(&"kernel".to_owned()), "{failed:?}");
    let said = stage.garth(&["verify", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.text().contains("the kernel is shared"), "{said:?}");
}

#[test]
fn a_pod_that_somebody_changed_is_found() {
    let Some(stage) = Stage::open("a_pod_that_somebody_changed_is_found") else { return };
    stage.ok(&["create", "web", "--memory", "64MiB", "--disk", "1GiB"]);
    stage.ok(&["start", "web"]);
    let shell = r#"{"spec": {"ephemeralContainers": [{"name": "look", "image": "localhost/busybox:lab", "command": ["sleep", "600"],
        "securityContext": {"runAsUser": 1000, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}}]}}"#;
    stage.kubectl(&["patch", "pod", "web", "--subresource=ephemeralcontainers", "-p", shell]);
    let failed = failed(&stage, "web");
    assert!(failed.contains(&"pod".to_owned()), "{failed:?}");
}
