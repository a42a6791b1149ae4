//! Sandboxes that wait for projects.

use crate::stage::Stage;
use crate::wiretap::answer;

/// A template that is what `SAME` asks for, and a pool of it.
fn pool(stage: &Stage, replicas: u32) {
    let namespace = &stage.namespace;
    let image = garth_cluster_lab::BUSYBOX;
    stage.apply(&format!(
        "apiVersion: garth.dev/v1alpha1
kind: ProjectTemplate
metadata: {{name: small, namespace: {namespace}}}
spec: {{image: \"{image}\", limits: {{memory: 64Mi, disk: 1Gi}}}}
---
apiVersion: garth.dev/v1alpha1
kind: WarmPool
metadata: {{name: warm, namespace: {namespace}}}
spec: {{template: small, replicas: {replicas}}}
"
    ));
    stage.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "warmpool", "warm"]);
}

const SAME: [&str; 4] = ["--memory", "64MiB", "--disk", "1GiB"];

/// The Pods of the pool that nobody has.
fn waiting(stage: &Stage) -> usize {
    let free = "garth.dev/pool=warm,!garth.dev/project";
    stage.kubectl(&["get", "pods", "-l", free, "-o=name"]).lines().count()
}

#[test]
fn a_project_takes_a_sandbox_that_waits_and_brings_what_is_its_own() {
    let test = "a_project_takes_a_sandbox_that_waits_and_brings_what_is_its_own";
    let Some(stage) = Stage::open(test) else { return };
    pool(&stage, 1);
    let name = stage.kubectl(&["get", "pods", "-l", "garth.dev/pool=warm", "-o=jsonpath={.items[0].metadata.name}"]);
    stage.kubectl(&["create", "secret", "generic", "words", "--from-literal=WORD=heron"]);
    let env = "  env: {GREETING: hello}\n  envFromSecrets: [words]\n  workdir: /tmp";
    stage.apply(&stage.project("web", env));
    assert_eq!(stage.sh("web", "echo $GREETING $WORD; pwd; echo kept > /workspace/note"), "hello heron\n/tmp");
    let taken = "-o=jsonpath={.status.sandbox.pod} {.status.claim.name}";
    assert_eq!(stage.kubectl(&["get", "project", "web", taken]), format!("{name} {name}-disk"));
    // What waits next is another; the taken one is the project's, whatever becomes of the pool.
    stage.until("another that waits", || waiting(&stage) == 1);
    stage.kubectl(&["delete", "warmpool", "warm", "--timeout=60s"]);
    stage.until("no other", || waiting(&stage) == 0);
    assert_eq!(stage.sh("web", "cat /workspace/note"), "kept");
    stage.kubectl(&["delete", "pod", &name, "--timeout=60s"]);
    stage.until("a sandbox of its own", || {
        stage.kubectl(&["get", "project", "web", "-o=jsonpath={.status.state} {.status.sandbox.pod}"]) == "Running web"
    });
    assert_eq!(stage.sh("web", "cat /workspace/note; echo $WORD"), "kept\nheron");
    // The project goes and comes back: so do its files, though the disk has a name of the pool's.
    stage.kubectl(&["delete", "project", "web", "--timeout=120s"]);
    stage.apply(&stage.project("web", ""));
    assert_eq!(stage.sh("web", "cat note"), "kept");
    stage.ok(&["rm", "-f", "web"]);
    stage.until("nothing", || stage.kubectl(&["get", "pods,pvc", "-o=name"]).is_empty());
    stage.until("no token", || !stage.kubectl(&["get", "secrets", "-o=name"]).contains("-agent"));
}

#[test]
fn many_projects_at_once_get_one_sandbox_each_and_no_pool_is_overfull() {
    let test = "many_projects_at_once_get_one_sandbox_each_and_no_pool_is_overfull";
    let Some(stage) = Stage::open(test) else { return };
    pool(&stage, 3);
    let names: Vec<_> = (0..8).map(|number| format!("p{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let stage = &stage;
            scope.spawn(move || {
                let own = ["create", name, "--env"];
                let value = format!("NAME={name}");
                stage.ok(&[&own[..], &[&value], &SAME].concat());
                assert_eq!(&stage.sh(name, "echo $NAME | tee note"), name);
            });
        }
        for _ in 0..50 {
            assert!(waiting(&stage) <= 3, "{}", stage.seen());
        }
    });
    let projects = stage.kubectl(&["get", "pods", "-l", "garth.dev/project", "-o=jsonpath={.items[*].metadata.name}"]);
    assert_eq!(projects.split(' ').count(), 8, "{projects}");
    assert!(projects.contains("warm-"), "none was taken: {projects}");
    for name in &names {
        assert_eq!(&stage.sh(name, "cat note"), name);
    }
    stage.until("a full pool", || waiting(&stage) == 3);
}

#[test]
fn a_sandbox_that_waits_lets_nobody_in_and_nothing_out() {
    let Some(stage) = Stage::open("a_sandbox_that_waits_lets_nobody_in_and_nothing_out") else { return };
    pool(&stage, 1);
    let path = "-o=jsonpath={.spec.egress} {.spec.policyTypes} {.spec.podSelector.matchLabels}";
    let policy = stage.kubectl(&["get", "networkpolicy", "warm-pool", path]);
    assert_eq!(policy, r#" ["Ingress","Egress"] {"garth.dev/pool":"warm"}"#);
    // Its agent begins with nobody who does not know its key. This machine is in the Pods' network.
    let address = stage.kubectl(&["get", "pods", "-l", "garth.dev/pool=warm", "-o=jsonpath={.items[0].status.podIP}"]);
    let bind = garth_spec::pod::BIND;
    let said = format!("POST {bind} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
    assert_eq!(answer(&address, &said), "");
    assert_eq!(waiting(&stage), 1);
}
