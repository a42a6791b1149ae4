//! What a project is on a cluster: files that stay, one sandbox, the verbs of the API.

use crate::stage::Stage;

#[test]
fn files_stay_when_the_pod_is_deleted() {
    let Some(stage) = Stage::open("files_stay_when_the_pod_is_deleted") else { return };
    stage.apply(&stage.project("web", "  env: {GREETING: hello $(HOME) $1}"));
    stage.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "project", "web"]);
    assert_eq!(stage.sh("web", "echo \"$GREETING\"; pwd; echo $HOME"), "hello $(HOME) $1\n/workspace\n/workspace");
    stage.sh("web", "echo heron > note; mkdir -m 700 dir; ln -s note link");
    let before = stage.kubectl(&["get", "pod", "web", "-o=jsonpath={.metadata.uid}"]);
    stage.kubectl(&["delete", "pod", "web", "--timeout=60s"]);
    stage.until("another sandbox", || {
        let path = "-o=jsonpath={.status.state} {.status.sandbox.uid}";
        let seen = stage.kubectl(&["get", "project", "web", path]);
        seen.starts_with("Running") && !seen.contains(&before)
    });
    assert_eq!(stage.sh("web", "cat link; stat -c %a dir"), "heron\n700");
    assert_eq!(stage.kubectl(&["get", "project", "web", "-o=jsonpath={.status.ended.reason}"]), "Lost");
    let columns = stage.kubectl(&["get", "projects"]);
    assert!(columns.contains("STATE") && columns.contains("Running"), "{columns}");
}

#[test]
fn a_deleted_project_leaves_its_disk_to_the_next_of_its_name_and_rm_leaves_nothing() {
    let test = "a_deleted_project_leaves_its_disk_to_the_next_of_its_name_and_rm_leaves_nothing";
    let Some(stage) = Stage::open(test) else { return };
    let manifest = stage.project("web", "");
    stage.apply(&manifest);
    stage.sh("web", "echo heron > note");
    stage.kubectl(&["delete", "project", "web", "--timeout=120s"]);
    assert!(stage.kubectl(&["get", "pvc", "-o=name"]).contains("web-disk"));
    stage.until("an end of the sandbox", || stage.kubectl(&["get", "pods", "-o=name"]).is_empty());
    stage.apply(&manifest);
    stage.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "project", "web"]);
    assert_eq!(stage.sh("web", "cat note"), "heron");
    stage.ok(&["rm", "-f", "web"]);
    stage.until("nothing", || stage.kubectl(&["get", "projects,pods,pvc,networkpolicies", "-o=name"]).is_empty());
    stage.until("no token", || !stage.kubectl(&["get", "secrets", "-o=name"]).contains("web-agent"));
}

#[test]
fn the_verbs_of_the_api_work() {
    let Some(stage) = Stage::open("the_verbs_of_the_api_work") else { return };
    stage.ok(&["create", "web", "--memory", "64MiB", "--disk", "1GiB", "--env", "A=1", "--label", "team=blue"]);
    let shown = stage.json(&["inspect", "web"]);
    let shown = shown.as_array().map_or(&shown, |list| &list[0]);
    assert_eq!((&shown["state"], &shown["spec"]["labels"]["team"]), (&"stopped".into(), &"blue".into()));
    stage.refused(&["create", "web"], "already_exists");
    // A command starts it.
    assert_eq!(stage.sh("web", "echo $A; echo heron > note"), "1");
    let done = stage.garth_with(&["exec", "-i", "web", "--", "sh", "-c", "cat; exit 7"], b"from outside");
    assert_eq!((done.code, done.text().as_str()), (7, "from outside"));
    let process = stage.ok(&["exec", "-d", "web", "--", "sh", "-c", "echo begun; exec sleep 1000"]);
    stage.until("its output", || stage.garth(&["logs", "web", &process]).text() == "begun");
    assert!(stage.ok(&["ps", "web"]).contains("sleep 1000"));
    stage.ok(&["kill", "web", &process]);
    assert_eq!(stage.garth(&["wait", "web", &process]).code, 137);
    let file = stage.data_dir().join("file");
    std::fs::write(&file, "carried").expect("a file");
    stage.ok(&["cp", file.to_str().expect("a path"), "web:/workspace/file"]);
    stage.ok(&["cp", "web:/workspace/file", stage.data_dir().join("back").to_str().expect("a path")]);
    assert_eq!(std::fs::read_to_string(stage.data_dir().join("back")).expect("the copy"), "carried");
    // The rest of the image's files are new each time, and the disk is not.
    stage.sh("web", "echo x > /tmp/gone");
    stage.ok(&["stop", "web"]);
    assert!(stage.kubectl(&["get", "pods", "-o=name"]).is_empty());
    stage.ok(&["set", "web", "--env", "A=2"]);
    assert_eq!(stage.sh("web", "cat note file; echo $A; ls /tmp"), "heron\ncarried2");
    assert!(stage.ok(&["set", "web", "--env", "A=3"]).contains("env"));
    stage.ok(&["restart", "web"]);
    assert_eq!(stage.sh("web", "echo $A"), "3");
    assert_eq!(stage.ok(&["run", "--rm", "--memory", "64MiB", "--", "sh", "-c", "echo $((6*7))"]), "42");
    stage.until("the end of what was held", || stage.ok(&["ls", "-a", "-q"]) == "web");
    stage.ok(&["rm", "-f", "web"]);
    stage.refused(&["inspect", "web"], "not_found");
}

#[test]
fn a_sandbox_is_as_the_restricted_standard_wants_and_knows_nothing_of_the_cluster() {
    let test = "a_sandbox_is_as_the_restricted_standard_wants_and_knows_nothing_of_the_cluster";
    let Some(stage) = Stage::open(test) else { return };
    stage.apply(&stage.project("web", ""));
    let seen = stage.sh("web", "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status");
    for line in ["1000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(seen.contains(line), "{line} is not in {seen}");
    }
    let inside = stage.sh("web", "env; ls /var/run/secrets /run/secrets 2>&1 || true");
    assert!(!inside.contains("KUBERNETES_") && !inside.contains("serviceaccount"), "{inside}");
    let policy = stage.kubectl(&["get", "networkpolicy", "web-sandbox", "-o=jsonpath={.spec.egress}"]);
    for range in ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16"] {
        assert!(policy.contains(range), "{policy}");
    }
}

#[test]
fn limits_change_in_the_sandbox_that_runs_and_others_may_change_them_too() {
    let test = "limits_change_in_the_sandbox_that_runs_and_others_may_change_them_too";
    let Some(stage) = Stage::open(test) else { return };
    stage.ok(&["create", "web", "--memory", "64MiB", "--cpus", "1"]);
    stage.ok(&["start", "web"]);
    let sandbox = || stage.kubectl(&["get", "pod", "web", "-o=jsonpath={.metadata.uid}"]);
    let memory = || {
        let of_the_kernel = "cd /sys/fs/cgroup; cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes";
        stage.sh("web", of_the_kernel).parse::<u64>().expect("bytes") >> 20
    };
    let (uid, before) = (sandbox(), memory());
    assert_eq!(before, 64);
    stage.ok(&["set", "web", "--memory", "96MiB", "--cpus", "0.5"]);
    stage.until("the new limit", || memory() == 96);
    stage.comes_to("web", "Running");

    // Such as an autoscaler of Pods.
    let resized = r#"{"spec": {"containers": [{"name": "sandbox", "resources": {"limits": {"memory": "80Mi"}, "requests": {"memory": "80Mi"}}}]}}"#;
    stage.kubectl(&["patch", "pod", "web", "--subresource=resize", "-p", resized]);
    stage.comes_to("web", "UpdatePending");
    stage.until("the other's limit", || memory() == 80);
    stage.kubectl(&["annotate", "project", "web", "look=again"]);
    stage.ok(&["set", "web", "--label", "a=b"]);
    assert_eq!((memory(), sandbox()), (80, uid));
}
