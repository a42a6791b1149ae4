//! A cluster with a real node.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;

use garth_cluster_lab::{BUSYBOX, Component, Image, Lab};

fn lab(test: &str) -> Option<&'static Lab> {
    static LAB: OnceLock<Lab> = OnceLock::new();
    Lab::is_possible(test).then(|| LAB.get_or_init(|| Lab::with_node().expect("a cluster")))
}

/// A Pod's manifest, of the busybox image; `more` are further lines of its spec.
fn pod(namespace: &str, name: &str, container: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - {{name: main, image: \"{BUSYBOX}\", imagePullPolicy: Never{container}}}
{more}"
    )
}

fn wait_ready(lab: &Lab, namespace: &str, name: &str) {
    let words = ["wait", "--for=condition=Ready", "--timeout=120s", "--namespace", namespace, "pod", name];
    if let Err(error) = lab.run(&words) {
        let described = lab.run(&["describe", "pod", "--namespace", namespace, name]);
        panic!("{error:#}\n{}\n{}", described.unwrap_or_default(), lab.logs());
    }
}

fn exec(lab: &Lab, namespace: &str, name: &str, script: &str) -> String {
    lab.run(&["exec", "--namespace", namespace, name, "--", "sh", "-c", script]).expect("exec")
}

#[test]
fn a_volume_keeps_its_files_when_the_pod_is_made_again() {
    let Some(lab) = lab("a_volume_keeps_its_files_when_the_pod_is_made_again") else { return };
    let namespace = lab.namespace().expect("a namespace");
    let claim = format!(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: any-name, namespace: {namespace}}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}"
    );
    lab.apply(&claim).expect("a claim");
    let mounts = ", volumeMounts: [{name: disk, mountPath: /disk}]";
    let volumes = "  volumes: [{name: disk, persistentVolumeClaim: {claimName: any-name}}]";
    let manifest = pod(&namespace, "writer", mounts, volumes);
    lab.apply(&manifest).expect("a pod");
    wait_ready(lab, &namespace, "writer");
    exec(lab, &namespace, "writer", "echo heron > /disk/word");
    lab.run(&["delete", "pod", "--namespace", &namespace, "writer", "--timeout=60s"]).expect("deleted");
    lab.apply(&manifest).expect("the pod again");
    wait_ready(lab, &namespace, "writer");
    assert_eq!(exec(lab, &namespace, "writer", "cat /disk/word"), "heron\n");
}

#[test]
fn a_pod_has_users_of_its_own() {
    let Some(lab) = lab("a_pod_has_users_of_its_own") else { return };
    let namespace = lab.namespace().expect("a namespace");
    lab.apply(&pod(&namespace, "mapped", "", "  hostUsers: false")).expect("a pod");
    wait_ready(lab, &namespace, "mapped");
    let map = exec(lab, &namespace, "mapped", "cat /proc/self/uid_map");
    let numbers: Vec<u64> = map.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    assert!(numbers[0] == 0 && numbers[1] >= 65536 && numbers[2] == 65536, "{map}");
}

#[test]
fn the_machine_reaches_pods_and_they_the_api_server() {
    let Some(lab) = lab("the_machine_reaches_pods_and_they_the_api_server") else { return };
    let namespace = lab.namespace().expect("a namespace");
    let serve = ", command: [/bin/busybox, httpd, -f, -p, '8080', -h, /etc], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}";
    lab.apply(&pod(&namespace, "server", serve, "")).expect("a pod");
    wait_ready(lab, &namespace, "server");
    let words = ["get", "pod", "--namespace", &namespace, "server", "--output=jsonpath={.status.podIP}"];
    let address = lab.run(&words).expect("its address");
    let mut stream = TcpStream::connect((address.as_str(), 8080)).expect("connects");
    stream.write_all(b"GET /passwd HTTP/1.0\r\n\r\n").expect("asks");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    assert!(answer.contains("root:x:0:0"), "{answer}");
    let reached = "nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT < /dev/null && echo reached";
    assert_eq!(exec(lab, &namespace, "server", reached), "reached\n");
}

#[test]
fn runtime_classes_choose_handlers() {
    let Some(lab) = lab("runtime_classes_choose_handlers") else { return };
    let namespace = lab.namespace().expect("a namespace");
    for class in ["sysbox-runc", "kata-qemu", "missing-on-node"] {
        lab.apply(&pod(&namespace, class, "", &format!("  runtimeClassName: {class}"))).expect("a pod");
    }
    for class in ["sysbox-runc", "kata-qemu"] {
        wait_ready(lab, &namespace, class);
    }
    let used = String::from_utf8(lab.ctr(&["containers", "list"]).output().expect("ctr").stdout).expect("text");
    assert!(used.contains("io.containerd.runc.v2"), "{used}");
    let events = ["get", "events", "--namespace", &namespace, "--field-selector=reason=FailedCreatePodSandBox"];
    lab.wait_for("the refusal of an unknown handler", || {
        Ok(lab.run(&events)?.contains("no runtime for \"missing-on-node\""))
    })
    .expect("an event");
}

#[test]
fn a_directory_is_an_image_and_a_restarted_node_keeps_its_pods() {
    if !Lab::is_possible("a_directory_is_an_image_and_a_restarted_node_keeps_its_pods") {
        return;
    }
    // Its own: the others' Pods cannot be reached meanwhile.
    let lab = &Lab::with_node().expect("a cluster");
    let namespace = lab.namespace().expect("a namespace");
    let root = lab.state().join("rootfs");
    std::fs::create_dir_all(root.join("bin")).expect("a directory");
    std::fs::copy(lab.program("busybox"), root.join("bin/sh")).expect("busybox");
    std::fs::write(root.join("made-here"), "heron\n").expect("a file");
    let name = "localhost/made-here:1";
    let loops = ["/bin/sh", "-c", "cat /made-here; read forever < /dev/zero"];
    lab.import(&Image::of_directory(name, &root).entrypoint(&loops)).expect("imported");
    lab.apply(&pod(&namespace, "made", "", "").replace(BUSYBOX, name)).expect("a pod");
    wait_ready(lab, &namespace, "made");
    for component in [Component::Containerd, Component::Kubelet] {
        lab.restart_component(component).expect("restarted");
    }
    lab.wait_for("its output", || {
        Ok(lab.run(&["logs", "--namespace", &namespace, "made"]).is_ok_and(|l| l == "heron\n"))
    })
    .expect("the same container");
}
