//! What breaks: operator, gateway, API server. Nothing is lost, and there are never two sandboxes of one project.

use std::time::Instant;

use garth_cluster_lab::{Component, Lab};

use crate::stage::{HOME, Process, Stage, TAKEOVER, operator};

#[test]
fn sandboxes_outlive_the_api_server_and_the_gateway() {
    let Some(mut stage) = Stage::alone("sandboxes_outlive_the_api_server_and_the_gateway") else { return };
    stage.apply(&stage.project("web", ""));
    stage.sh("web", "echo heron > note");
    stage.lab.kill_component(Component::ApiServer).expect("killed");
    // The way to the agent does not lead through it.
    assert_eq!(stage.sh("web", "cat note"), "heron");
    stage.lab.start_component(Component::ApiServer).expect("started");
    stage.restart_gateway();
    assert_eq!(stage.sh("web", "cat note"), "heron");
    // The operator sees what happens again.
    stage.kubectl(&["delete", "pod", "web", "--timeout=60s"]);
    stage.until("another sandbox", || stage.garth(&["exec", "web", "--", "cat", "note"]).text() == "heron");
}

#[test]
fn an_operator_makes_up_for_changes_that_nobody_can_tell_it_any_more() {
    let test = "an_operator_makes_up_for_changes_that_nobody_can_tell_it_any_more";
    let Some(stage) = Stage::alone(test) else { return };
    let late = leader(&stage, "late");
    stage.apply(&stage.project("web", ""));
    stage.sh("web", "echo heron > note");
    stage.apply(&stage.project("gone", ""));
    stage.comes_to("gone", "Running");
    late.at_rest(|| {
        stage.kubectl(&["delete", "pod", "web", "--grace-period=0", "--force"]);
        stage.kubectl(&["delete", "project", "gone", "--wait=false"]);
        stage.apply(&stage.project("new", ""));
        // Neither etcd nor a new API server knows what came before: a watch that asks for it is answered with 410 Gone.
        forget_history(stage.lab);
        stage.lab.kill_component(Component::ApiServer).expect("killed");
        stage.lab.start_component(Component::ApiServer).expect("started");
    });
    stage.comes_to("new", "Running");
    stage.until("another sandbox", || stage.garth(&["exec", "web", "--", "cat", "note"]).text() == "heron");
    stage.until("the removal", || stage.kubectl(&["get", "projects", "-o=name"]).lines().count() == 2);
    // It serves the other tests from now on.
    std::mem::forget(late);
}

/// Has etcd keep the newest revision only.
fn forget_history(lab: &Lab) {
    let script = "import json, urllib.request as http
def ask(path, body):
    request = http.Request('http://127.0.0.1:2379/v3/kv/' + path, json.dumps(body).encode())
    return json.load(http.urlopen(request, timeout=30))
revision = ask('range', {'key': 'AA=='})['header']['revision']
ask('compaction', {'revision': revision, 'physical': True})";
    let done = lab.command("python3").args(["-c", script]).output().expect("python3");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn holder(lab: &Lab) -> String {
    let get = ["--namespace", HOME, "get", "lease", "garth-operator", "-o=jsonpath={.spec.holderIdentity}"];
    lab.run(&get).unwrap_or_default()
}

/// An operator that takes the lease from the one of all tests, as if a person gave it away.
fn leader(stage: &Stage, identity: &str) -> Process {
    let leader = operator(stage.lab, identity);
    let given = format!(r#"{{"spec":{{"holderIdentity":"{identity}"}}}}"#);
    let give = ["--namespace", HOME, "patch", "lease", "garth-operator", "--type=merge", "-p", &given];
    stage.lab.run(&give).expect("given");
    stage.until("it to lead", || holder(stage.lab) == identity);
    leader
}

#[test]
fn another_operator_takes_over_from_one_that_is_killed() {
    let Some(stage) = Stage::alone("another_operator_takes_over_from_one_that_is_killed") else { return };
    let mut second = leader(&stage, "second");
    let third = operator(stage.lab, "third");
    stage.apply(&stage.project("web", ""));
    stage.comes_to("web", "Running");
    let killed = Instant::now();
    second.kill();
    stage.apply(&stage.project("other", ""));
    // The third, or the one that led before.
    stage.until("another to lead", || ![String::new(), "second".to_owned()].contains(&holder(stage.lab)));
    assert!(killed.elapsed() < TAKEOVER, "took {:?}", killed.elapsed());
    stage.comes_to("other", "Running");
    assert_eq!(stage.kubectl(&["get", "pods", "-o=name"]).lines().count(), 2);
    // It serves the other tests from now on.
    std::mem::forget(third);
}
