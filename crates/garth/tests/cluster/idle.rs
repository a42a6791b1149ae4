//! A sandbox in which nothing goes on is given up, and comes back with the next request.

use crate::stage::Stage;

/// The shortest that the schema takes.
const SUSPENDS: &str = "  idle: {suspendAfterSeconds: 10}";

#[test]
fn an_idle_sandbox_is_given_up_and_a_request_wakes_it() {
    let Some(stage) = Stage::open("an_idle_sandbox_is_given_up_and_a_request_wakes_it") else { return };
    stage.apply(&stage.project("web", SUSPENDS));
    stage.sh("web", "echo heron > note");
    // Who only looks at it keeps it no longer.
    stage.until("its end", || stage.json(&["inspect", "web"])["state"] == "stopped");
    assert!(stage.comes_to("web", "Suspended").contains("a request wakes it"));
    assert!(stage.kubectl(&["get", "pods", "-o=name"]).is_empty());
    let shown = stage.json(&["inspect", "web"]);
    let shown = shown.as_array().map_or(&shown, |list| &list[0]);
    assert_eq!((&shown["state"], &shown["ended"]["reason"]), (&"stopped".into(), &"idle".into()));
    // The spec is the user's: nobody has written to it.
    assert_eq!(stage.kubectl(&["get", "project", "web", "-o=jsonpath={.metadata.generation}"]), "1");
    assert_eq!(stage.sh("web", "cat note"), "heron");
    // kubectl wakes it as well.
    stage.comes_to("web", "Suspended");
    let ended = stage.kubectl(&["get", "project", "web", "-o=jsonpath={.status.ended.uid}"]);
    stage.kubectl(&["annotate", "--overwrite", "project", "web", &format!("garth.dev/wake={ended}")]);
    stage.comes_to("web", "Running");
}

#[test]
fn a_sandbox_with_a_process_is_busy_and_no_request_falls_into_its_end() {
    let test = "a_sandbox_with_a_process_is_busy_and_no_request_falls_into_its_end";
    let Some(stage) = Stage::open(test) else { return };
    stage.apply(&stage.project("busy", SUSPENDS));
    stage.apply(&stage.project("lazy", SUSPENDS));
    // Its parent is gone, and nobody waits for it.
    stage.sh("busy", "(sleep 1000 &) ; echo heron > note");
    stage.sh("lazy", "true");
    let uid = || stage.kubectl(&["get", "project", "busy", "-o=jsonpath={.status.sandbox.uid}"]);
    let before = uid();
    // While one goes to sleep, requests come at every moment of it.
    for round in 0..3 {
        stage.until("the agent's end", || {
            let phase = "-o=jsonpath={.items[?(@.metadata.name==\"lazy\")].status.phase}";
            stage.kubectl(&["get", "pods", phase]) != "Running"
        });
        assert_eq!(stage.sh("lazy", &format!("echo {round}")), round.to_string());
    }
    assert_eq!(stage.sh("busy", "cat note"), "heron");
    assert_eq!(uid(), before);
}
