//! What is asked and cannot be: each is said with what to do, and nothing is lost.

use crate::stage::Stage;
use crate::terminal::Terminal;

#[test]
fn specs_that_make_no_sense_are_refused_with_a_sentence() {
    let Some(stage) = Stage::open("specs_that_make_no_sense_are_refused_with_a_sentence") else { return };
    for (more, sentence) in [
        ("  runtime: gvisor", "runtime is one of default, sysbox, microvm"),
        ("  network: all", "network is internet or none"),
        ("  workdir: here", "workdir starts with '/'"),
        ("  disk: {path: /}", "disk.path is an absolute path"),
        ("  disk: {path: /garth/x}", "disk.path is an absolute path"),
        ("  atLeast: strong", "atLeast is one of"),
        ("  surprise: 1", "surprise"),
        ("  desiredState: Paused", "Unsupported value"),
    ] {
        let manifest = stage.project("web", more);
        let refused = stage.lab.apply(&manifest).expect_err(more);
        assert!(format!("{refused:#}").contains(sentence), "{more}: {refused:#}");
    }
    for (limits, sentence) in [
        ("{memory: 1Mi}", "limits.memory is a quantity of 16Mi and above"),
        ("{cpus: '0'}", "limits.cpus is a quantity above 0"),
        ("{cpus: two}", "limits.cpus is a quantity above 0"),
        ("{disk: lots}", "limits.disk is a quantity of 16Mi and above"),
    ] {
        let manifest = stage.project("web", "").replace("{memory: 64Mi, disk: 1Gi}", limits);
        let refused = stage.lab.apply(&manifest).expect_err(limits);
        assert!(format!("{refused:#}").contains(sentence), "{limits}: {refused:#}");
    }
    let manifest = stage.project("web.example", "");
    let refused = stage.lab.apply(&manifest).expect_err("a name");
    assert!(format!("{refused:#}").contains("a project's name is also its hostname"), "{refused:#}");
    stage.apply(&stage.project("web", "  desiredState: Stopped"));
    let smaller = stage.project("web", "  desiredState: Stopped").replace("disk: 1Gi", "disk: 500Mi");
    let refused = stage.lab.apply(&smaller).expect_err("a smaller disk");
    assert!(format!("{refused:#}").contains("limits.disk cannot shrink"), "{refused:#}");
    let class = "apiVersion: garth.dev/v1alpha1
kind: IsolationClass
metadata: {name: too-much}
spec: {runtime: default, user: Root}";
    let refused = stage.lab.apply(class).expect_err("the node's root");
    assert!(format!("{refused:#}").contains("it is the node's root"), "{refused:#}");
}

#[test]
fn a_cluster_that_refuses_the_pod_is_quoted() {
    let Some(stage) = Stage::open("a_cluster_that_refuses_the_pod_is_quoted") else { return };
    stage.kubectl(&["create", "quota", "small", "--hard=pods=0"]);
    stage.apply(&stage.project("web", ""));
    let said = stage.comes_to("web", "Refused");
    assert!(said.contains("exceeded quota"), "{said}");
    let events = || stage.kubectl(&["get", "events", "--field-selector=involvedObject.kind=Project"]);
    stage.until("the event", || events().contains("exceeded quota"));
    stage.kubectl(&["delete", "quota", "small"]);
    stage.comes_to("web", "Running");
}

#[test]
fn who_waits_at_a_terminal_is_told_for_what() {
    let Some(stage) = Stage::open("who_waits_at_a_terminal_is_told_for_what") else { return };
    stage.ok(&["create", "big", "--memory", "900GiB"]);
    let mut terminal = Terminal::new();
    let mut waits = terminal.run(stage.command(&["exec", "big", "--", "true"]));
    terminal.shows("big waits: ");
    let waiting = &stage.json(&["inspect", "big"])["waiting"];
    assert_eq!(waiting["reason"], "Unschedulable", "{waiting}");
    assert!(waiting["message"].as_str().is_some_and(|said| said.contains("memory")), "{waiting}");
    assert!(waiting["since"].is_string(), "{waiting}");
    assert!(stage.ok(&["inspect", "big"]).lines().any(|line| line.starts_with("waiting ")));
    stage.ok(&["rm", "-f", "big"]);
    assert!(!waits.wait().expect("it ends").success());
}

#[test]
fn an_image_that_cannot_be_had_is_said_in_time() {
    let Some(stage) = Stage::open("an_image_that_cannot_be_had_is_said_in_time") else { return };
    stage.ok(&["create", "web", "--image", "no-such-image:1"]);
    let said = stage.refused(&["start", "web"], "start_failed");
    assert!(said.contains("ImagePull"), "{said}");
    assert_eq!(stage.kubectl(&["get", "project", "web", "-o=jsonpath={.spec.desiredState}"]), "Stopped");
}

#[test]
fn a_name_that_others_have_is_left_to_them() {
    let Some(stage) = Stage::open("a_name_that_others_have_is_left_to_them") else { return };
    stage.kubectl(&["create", "configmap", "unrelated"]);
    let claim = format!(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: web-disk, namespace: {}}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}",
        stage.namespace
    );
    stage.apply(&claim);
    stage.apply(&stage.project("web", ""));
    let said = stage.comes_to("web", "Refused");
    assert!(said.contains("PersistentVolumeClaim web-disk"), "{said}");
    assert!(stage.kubectl(&["get", "pods", "-o=name"]).is_empty());
}

#[test]
fn what_a_cluster_cannot_do_is_said() {
    let Some(stage) = Stage::open("what_a_cluster_cannot_do_is_said") else { return };
    stage.refused(&["create", "web", "--read-only"], "unsupported");
    stage.refused(&["create", "web", "--pids", "50"], "unsupported");
    stage.ok(&["create", "web"]);
    stage.refused(&["pause", "web"], "unsupported");
    stage.refused(&["image", "ls"], "unsupported");
    stage.refused(&["set", "web", "--disk", "1GiB"], "invalid_request");
}
