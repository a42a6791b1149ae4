//! A cluster without a node.

use garth_cluster_lab::{Component, Lab};

#[test]
fn objects_outlive_crashes_and_users_may_do_what_they_were_given() {
    if !Lab::is_possible("objects_outlive_crashes_and_users_may_do_what_they_were_given") {
        return;
    }
    let lab = Lab::control_plane().expect("a control plane");
    let namespace = lab.namespace().expect("a namespace");
    let within = format!("--namespace={namespace}");
    lab.run(&["create", "configmap", "kept", "--from-literal=word=heron", &within]).expect("a config map");

    let user = lab.user("jane", Some("people")).expect("a user");
    let reads = || {
        let got = lab.kubectl_as(&user).args(["get", "configmap", "kept", &within]).output().expect("kubectl");
        (got.status.success(), String::from_utf8_lossy(&got.stderr).into_owned())
    };
    let (allowed, said) = reads();
    assert!(!allowed && said.contains("\"jane\" cannot get resource"), "{said}");
    lab.run(&["create", "rolebinding", "people", "--clusterrole=view", "--group=people", &within]).expect("a role");
    lab.wait_for("the role's effect", || Ok(reads().0)).expect("the group may read");
    let account = lab.service_account(&namespace, "default").expect("a service account");
    let itself = lab.kubectl_as(&account).args(["auth", "whoami"]).output().expect("kubectl");
    let itself = String::from_utf8_lossy(&itself.stdout);
    assert!(itself.contains(&format!("system:serviceaccount:{namespace}:default")), "{itself}");

    lab.kill_component(Component::ApiServer).expect("killed");
    assert!(lab.run(&["get", "--raw=/readyz", "--request-timeout=2s"]).is_err(), "nobody answers");
    lab.start_component(Component::ApiServer).expect("started again");
    for component in [Component::Etcd, Component::ControllerManager, Component::Scheduler] {
        lab.restart_component(component).expect("restarted");
    }
    let word = lab.run(&["get", "configmap", "kept", &within, "--output=jsonpath={.data.word}"]).expect("still there");
    assert_eq!(word, "heron");
    let classes = lab.run(&["get", "runtimeclasses", "--output=name"]).expect("runtime classes");
    assert!(classes.contains("kata-qemu") && classes.contains("sysbox-runc"), "{classes}");
    // The controllers work after all that: a new namespace gets its service account.
    lab.namespace().expect("another namespace");
}
