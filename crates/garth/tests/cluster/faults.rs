//! What breaks: operator, gateway, API server. Nothing is lost, and there are never two sandboxes of one project.

use std::time::Instant;

use garth_cluster_lab::Component;

use crate::stage::{HOME, Stage, TAKEOVER, operator};

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
fn another_operator_takes_over_from_one_that_is_killed() {
    let Some(stage) = Stage::alone("another_operator_takes_over_from_one_that_is_killed") else { return };
    let holder = || {
        stage.lab.run(&["--namespace", HOME, "get", "lease", "garth-operator", "-o=jsonpath={.spec.holderIdentity}"])
    };
    let is = |identity: &str| holder().is_ok_and(|holder| holder == identity);
    // Takes the lease from the one of all tests, as if a person gave it away.
    let mut second = operator(stage.lab, "second");
    let given = r#"{"spec":{"holderIdentity":"second"}}"#;
    let give = ["--namespace", HOME, "patch", "lease", "garth-operator", "--type=merge", "-p", given];
    stage.lab.run(&give).expect("given");
    stage.until("the second to lead", || is("second"));
    let third = operator(stage.lab, "third");
    stage.apply(&stage.project("web", ""));
    stage.comes_to("web", "Running");
    let killed = Instant::now();
    second.kill();
    stage.apply(&stage.project("other", ""));
    // The third, or the one that led before.
    stage.until("another to lead", || holder().is_ok_and(|holder| !holder.is_empty() && holder != "second"));
    assert!(killed.elapsed() < TAKEOVER, "took {:?}", killed.elapsed());
    stage.comes_to("other", "Running");
    assert_eq!(stage.kubectl(&["get", "pods", "-o=name"]).lines().count(), 2);
    // It serves the other tests from now on.
    std::mem::forget(third);
}
