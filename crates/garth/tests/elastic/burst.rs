//! Many projects at once, of every runtime.

use std::collections::BTreeSet;

use garth_cluster::install::pools::RUNTIME_LABEL;
use garth_spec::Runtime;
use serde_json::Value;

use crate::field::Field;

/// Projects of each runtime. A machine's own disk has room for five.
const EACH: u32 = 20;

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

#[test]
fn each_runtime_makes_its_own_pool_grow_and_only_empty_nodes_go() {
    let Some(field) = Field::open("each_runtime_makes_its_own_pool_grow_and_only_empty_nodes_go") else { return };
    field.pools(&Runtime::ALL, 256);
    // The first waits for a machine, and then for what is installed on it.
    field.projects(Runtime::Sysbox, 0..1);
    let said = field.comes_to("sysbox-0", "NodeComing");
    assert!(said.contains("karpenter: Pod should schedule on: nodeclaim/garth-sysbox"), "{said}");
    assert!(field.all(Runtime::Sysbox)["sysbox-0"]["status"]["sandbox"]["pendingSince"].is_string());
    field.projects(Runtime::Default, 0..EACH);
    field.projects(Runtime::Sysbox, 1..EACH);
    field.until("projects of the plain runtime", || field.count(Runtime::Default, "Running") == EACH as usize);
    field.until("nodes for Sysbox", || !field.nodes(Runtime::Sysbox).is_empty());
    let pods = field.pods();
    let early = pods.iter().filter(|(name, pod)| name.starts_with("sysbox") && pod["spec"]["nodeName"].is_string());
    assert_eq!(early.count(), 0, "a Pod is on a node before Sysbox is");
    assert!(field.nodes(Runtime::Microvm).is_empty(), "nobody asked for microVMs");
    field.until("projects with Sysbox", || {
        field.install(Runtime::Sysbox);
        field.count(Runtime::Sysbox, "Running") == EACH as usize
    });
    field.projects(Runtime::Microvm, 0..EACH);
    field.until("microVMs", || {
        field.install(Runtime::Microvm);
        field.count(Runtime::Microvm, "Running") == EACH as usize
    });
    // Each is on a node of its runtime, and no pool has more nodes than its projects need.
    let (pods, mut used) = (field.pods(), BTreeSet::new());
    assert_eq!(pods.len(), 3 * EACH as usize);
    for runtime in Runtime::ALL {
        let nodes = field.nodes(runtime);
        for (name, pod) in pods.iter().filter(|(name, _)| name.starts_with(&runtime.to_string())) {
            let node = pod["spec"]["nodeName"].as_str().expect("a node");
            assert!(nodes.contains_key(node), "{name} is on {node}, which is not of {RUNTIME_LABEL}={runtime}");
            used.insert(node.to_owned());
        }
        // Karpenter may have made one too many, and takes it back.
        field.until("no idle node", || field.nodes(runtime).keys().all(|node| used.contains(node)));
        let nodes = field.nodes(runtime);
        assert!((EACH as usize / 5..EACH as usize).contains(&nodes.len()), "{runtime} has {} nodes", nodes.len());
    }

    // Most stop. What runs stays where it is; nodes go that nothing runs on.
    let sysbox = field.nodes(Runtime::Sysbox);
    let busy: Vec<_> = pods.iter().filter(|(name, _)| name.starts_with("sysbox") || *name == "microvm-0").collect();
    field.ask(Runtime::Default, 0..EACH, "Stopped");
    field.ask(Runtime::Microvm, 1..EACH, "Stopped");
    field.until("empty nodes to go", || {
        field.nodes(Runtime::Default).is_empty() && field.nodes(Runtime::Microvm).len() == 1
    });
    let left = field.pods();
    assert_eq!(left.len(), busy.len());
    for (name, pod) in busy {
        assert_eq!(uid(&left[name]), uid(pod), "{name} was moved");
    }
    assert_eq!(field.nodes(Runtime::Sysbox).keys().collect::<Vec<_>>(), sysbox.keys().collect::<Vec<_>>());
}
