//! The traps of clusters that grow from nothing: each of these mistakes leaves Pods waiting, or nodes coming, for ever.

use super::*;

const ALL: [Runtime; 3] = Runtime::ALL;

fn karpenter(machines: Machines) -> Made {
    let karpenter = Karpenter { role: "nodes".to_owned(), version: "1.34".to_owned(), machines, cpus: 256 };
    made(Autoscaler::Karpenter(karpenter), 2)
}

fn cluster_autoscaler() -> Made {
    let zones = ["eu-central-1a", "eu-central-1b"].map(str::to_owned).into();
    made(Autoscaler::ClusterAutoscaler(Groups { region: "eu-central-1".to_owned(), zones, nodes: 10 }), 2)
}

fn made(autoscaler: Autoscaler, spare: u32) -> Made {
    pools(&Pools {
        cluster: "agents".to_owned(),
        runtimes: ALL.into(),
        spare,
        namespace: "garth".to_owned(),
        autoscaler,
    })
}

fn find<'a>(made: &'a Made, kind: &str, name: &str) -> Option<&'a Value> {
    made.objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

/// What leads a runtime's Pods to nodes: selector and tolerations.
fn leads(made: &Made, runtime: Runtime) -> (&Value, &Value) {
    let name = format!("garth-{runtime}");
    let class = &find(made, "IsolationClass", &name).expect("a class")["spec"];
    match class["runtimeClassName"].as_str() {
        Some(name) => {
            let scheduling = &find(made, "RuntimeClass", name).expect("the class that it names")["scheduling"];
            (&scheduling["nodeSelector"], &scheduling["tolerations"])
        }
        None => (&class["nodeSelector"], &class["tolerations"]),
    }
}

/// Labels, taints and startup taints of every node of a runtime, whoever makes it.
fn nodes(made: &Made, runtime: Runtime) -> Vec<(Value, Vec<Value>, Vec<Value>)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    if let Some(pool) = find(made, "NodePool", &format!("garth-{runtime}")) {
        let template = &pool["spec"]["template"];
        let spec = &template["spec"];
        return vec![(template["metadata"]["labels"].clone(), list(&spec["taints"]), list(&spec["startupTaints"]))];
    }
    let groups = made.groups.as_ref().expect("groups")["managedNodeGroups"].as_array().expect("a list");
    let of_runtime = groups.iter().filter(|group| group["labels"][RUNTIME_LABEL] == runtime.to_string());
    let startup = |taint: &Value| taint["key"] != RUNTIME_LABEL;
    of_runtime
        .map(|group| {
            let (startup, taints) = list(&group["taints"]).into_iter().partition(startup);
            (group["labels"].clone(), taints, startup)
        })
        .collect()
}

fn tolerates(tolerations: &Value, taint: &Value) -> bool {
    tolerations.as_array().expect("tolerations").iter().any(|toleration| {
        let any = toleration["operator"] == "Exists" || toleration["value"] == taint["value"];
        toleration["key"] == taint["key"] && toleration["effect"] == taint["effect"] && any
    })
}

fn each(check: impl Fn(&Made, Runtime)) {
    for made in [karpenter(Machines::Nested), karpenter(Machines::Metal), cluster_autoscaler()] {
        ALL.into_iter().for_each(|runtime| check(&made, runtime));
    }
}

#[test]
fn every_label_that_pods_select_is_in_the_template_of_their_pool() {
    each(|made, runtime| {
        let (selector, _) = leads(made, runtime);
        let selector = selector.as_object().expect("a selector");
        assert!(!selector.is_empty());
        for (labels, ..) in nodes(made, runtime) {
            for (key, value) in selector {
                assert_eq!(&labels[key], value, "{runtime}: {key}");
            }
        }
    });
}

#[test]
fn every_taint_that_stays_is_tolerated_and_none_that_goes() {
    each(|made, runtime| {
        let (_, tolerations) = leads(made, runtime);
        let nodes = nodes(made, runtime);
        assert!(!nodes.is_empty(), "{runtime} has no pool");
        for (_, taints, startup) in nodes {
            assert!(!taints.is_empty() && taints.iter().all(|taint| tolerates(tolerations, taint)), "{runtime}");
            assert!(startup.iter().all(|taint| !tolerates(tolerations, taint)), "{runtime}: before it is installed");
        }
    });
}

#[test]
fn what_has_to_be_installed_has_a_startup_taint() {
    each(|made, runtime| {
        let installed = runtime != Runtime::Default;
        for (_, _, startup) in nodes(made, runtime) {
            assert_eq!(startup.len(), usize::from(installed), "{runtime}");
        }
    });
    let pool = karpenter(Machines::Nested);
    let pool = find(&pool, "NodePool", "garth-sysbox").expect("a pool");
    let expected = json!([{ "key": "sysbox-runtime", "value": "not-running", "effect": "NoSchedule" }]);
    assert_eq!(pool["spec"]["template"]["spec"]["startupTaints"], expected);
}

#[test]
fn each_pod_fits_the_nodes_of_its_runtime_alone() {
    each(|made, runtime| {
        let (selector, tolerations) = leads(made, runtime);
        for other in ALL.into_iter().filter(|other| *other != runtime) {
            for (labels, taints, _) in nodes(made, other) {
                assert_ne!(selector[RUNTIME_LABEL], labels[RUNTIME_LABEL]);
                assert!(!taints.iter().all(|taint| tolerates(tolerations, taint)), "{runtime} on {other}");
            }
        }
    });
}

#[test]
fn a_node_goes_only_when_it_is_empty() {
    for runtime in ALL {
        let made = karpenter(Machines::Nested);
        let spec = &find(&made, "NodePool", &format!("garth-{runtime}")).expect("a pool")["spec"];
        let disruption = &spec["disruption"];
        assert_eq!(
            (&disruption["consolidationPolicy"], &disruption["consolidateAfter"]),
            (&json!("WhenEmpty"), &json!("10m"))
        );
        assert_eq!(disruption["budgets"][0], json!({ "nodes": "100%", "reasons": ["Empty"] }));
        assert!(spec["template"]["spec"]["terminationGracePeriod"].is_null(), "it would end sandboxes");
        assert_eq!(spec["limits"]["cpu"], "256");
    }
}

#[test]
fn microvms_run_where_there_is_kvm() {
    let nested = karpenter(Machines::Nested);
    let class = find(&nested, "EC2NodeClass", "garth-microvm").expect("a class");
    assert_eq!(class["spec"]["cpuOptions"]["nestedVirtualization"], "enabled");
    assert!(find(&nested, "EC2NodeClass", "garth-default").expect("a class")["spec"]["cpuOptions"].is_null());
    let metal = karpenter(Machines::Metal);
    assert!(find(&metal, "EC2NodeClass", "garth-microvm").expect("a class")["spec"]["cpuOptions"].is_null());
    let pool = find(&metal, "NodePool", "garth-microvm").expect("a pool");
    assert!(pool["spec"]["template"]["spec"]["requirements"].to_string().contains("\"metal\""));
    // A managed group would drop the option and make nodes without KVM.
    let groups = cluster_autoscaler().groups.expect("groups");
    let groups = groups["managedNodeGroups"].as_array().expect("a list").clone();
    for group in groups.iter().filter(|group| group["labels"][RUNTIME_LABEL] == "microvm") {
        let types = group["instanceTypes"].as_array().expect("types");
        assert!(types.iter().all(|machine| machine.as_str().is_some_and(|it| it.ends_with(".metal"))), "{types:?}");
    }
    let class = find(&nested, "RuntimeClass", "garth-microvm").expect("a class");
    assert_eq!(class["overhead"]["podFixed"], json!({ "cpu": "250m", "memory": "320Mi" }));
}

#[test]
fn a_group_that_has_no_node_is_known_by_its_tags() {
    let made = cluster_autoscaler();
    let groups = made.groups.as_ref().expect("groups")["managedNodeGroups"].as_array().expect("a list");
    assert_eq!(groups.len(), 6, "one for each runtime in each zone");
    for group in groups {
        assert_eq!((&group["minSize"], group["availabilityZones"].as_array().map(Vec::len)), (&json!(0), Some(1)));
        let tags = group["tags"].as_object().expect("tags");
        assert_eq!(
            (&tags["k8s.io/cluster-autoscaler/enabled"], &tags["k8s.io/cluster-autoscaler/agents"]),
            (&json!("true"), &json!("owned"))
        );
        for (label, value) in group["labels"].as_object().expect("labels") {
            assert_eq!(&tags[&format!("k8s.io/cluster-autoscaler/node-template/label/{label}")], value);
        }
        let zone = &group["availabilityZones"][0];
        assert_eq!(&tags["k8s.io/cluster-autoscaler/node-template/label/topology.kubernetes.io/zone"], zone);
        let disk = tags["k8s.io/cluster-autoscaler/node-template/resources/ephemeral-storage"].as_str();
        assert!(disk.is_some_and(|disk| disk.ends_with("Gi")), "no sandbox would fit");
        let taints: Vec<_> = tags.keys().filter_map(|key| key.split_once("node-template/taint/")).collect();
        assert_eq!(taints.len(), 1, "the startup taint will be gone: {taints:?}");
        let runtime = group["labels"][RUNTIME_LABEL].as_str().expect("a runtime");
        let taint = &tags["k8s.io/cluster-autoscaler/node-template/taint/garth.dev/runtime"];
        assert_eq!(taint, &json!(format!("{runtime}:NoSchedule")));
        assert!(tags.len() < 50, "a group has 50 tags at most");
    }
}

#[test]
fn sandboxes_do_not_reach_the_credentials_of_their_node() {
    for runtime in ALL {
        let made = karpenter(Machines::Nested);
        let class = find(&made, "EC2NodeClass", &format!("garth-{runtime}")).expect("a class");
        assert_eq!(class["spec"]["metadataOptions"], json!({ "httpTokens": "required", "httpPutResponseHopLimit": 1 }));
    }
    let groups = cluster_autoscaler().groups.expect("groups");
    assert!(
        groups["managedNodeGroups"].as_array().expect("a list").iter().all(|group| group["disablePodIMDS"] == true)
    );
}

#[test]
fn an_image_that_karpenter_does_not_know_joins_with_the_taint_that_it_waits_for() {
    let made = karpenter(Machines::Nested);
    let spec = &find(&made, "EC2NodeClass", "garth-sysbox").expect("a class")["spec"];
    assert_eq!(spec["amiFamily"], "Custom");
    assert!(spec["amiSelectorTerms"][0]["name"].as_str().is_some_and(|name| name.contains("k8s_1.34/")));
    let join = spec["userData"].as_str().expect("a script");
    assert!(join.contains("bootstrap.sh 'agents'"), "{join}");
    assert!(join.contains("register-with-taints=karpenter.sh/unregistered=true:NoExecute"), "{join}");
}

#[test]
fn placeholders_make_way_and_keep_room_where_projects_go() {
    each(|made, runtime| {
        let priority = find(made, "PriorityClass", "garth-spare").expect("a priority");
        assert_eq!((&priority["value"], &priority["preemptionPolicy"]), (&json!(-10), &json!("Never")));
        let spare = &find(made, "Deployment", &format!("garth-{runtime}-spare")).expect("placeholders")["spec"];
        let pod = &spare["template"]["spec"];
        assert_eq!((&spare["replicas"], &pod["priorityClassName"]), (&json!(2), &json!("garth-spare")));
        let (selector, tolerations) = leads(made, runtime);
        assert_eq!(&pod["nodeSelector"], selector);
        assert!(
            nodes(made, runtime)
                .iter()
                .all(|(_, taints, _)| taints.iter().all(|taint| tolerates(&pod["tolerations"], taint)))
        );
        assert!(tolerations.is_array());
    });
    let none = made(Autoscaler::ClusterAutoscaler(Groups { region: String::new(), zones: vec![], nodes: 1 }), 0);
    assert!(!none.objects.iter().any(|object| object["kind"] == "PriorityClass" || object["kind"] == "Deployment"));
}

#[test]
fn a_placeholder_is_as_large_as_a_project_that_says_nothing() {
    let spec = serde_json::from_value(json!({ "image": "debian:12" })).expect("a spec");
    let settings =
        crate::Settings { agent_image: String::new(), namespace: String::new(), suspend_after_seconds: None };
    let pod = crate::render::pod(&crate::resources::Project::new("web", spec), None, &settings, "disk");
    let sandbox = serde_json::to_value(&pod.spec.expect("a spec").containers[0].resources).expect("JSON");
    let made = karpenter(Machines::Nested);
    let spare = &find(&made, "Deployment", "garth-default-spare").expect("placeholders")["spec"]["template"]["spec"];
    let requests = &spare["containers"][0]["resources"]["requests"];
    for resource in ["cpu", "memory"] {
        assert_eq!(requests[resource], sandbox["requests"][resource]);
    }
    // Where only a limit is given, it is the request as well.
    assert_eq!(requests["ephemeral-storage"], sandbox["limits"]["ephemeral-storage"]);
}

#[test]
fn only_the_runtimes_that_are_asked_for_have_pools() {
    let karpenter = Karpenter { role: "nodes".to_owned(), version: String::new(), machines: Machines::Metal, cpus: 8 };
    let made = pools(&Pools {
        cluster: "agents".to_owned(),
        runtimes: vec![Runtime::Microvm],
        spare: 0,
        namespace: "garth".to_owned(),
        autoscaler: Autoscaler::Karpenter(karpenter),
    });
    let kinds: Vec<_> = made.objects.iter().map(|object| object["kind"].as_str().unwrap_or_default()).collect();
    assert_eq!(kinds, ["RuntimeClass", "IsolationClass", "EC2NodeClass", "NodePool"]);
}
