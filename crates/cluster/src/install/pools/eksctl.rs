//! Pools as groups of EKS's, which Cluster Autoscaler lets grow: a file for `eksctl create nodegroup`.

use std::collections::BTreeMap;

use garth_spec::Runtime;
use serde_json::{Value, json};

use super::facts::Facts;
use super::{DISK, Groups, LARGE_DISK, Pools, name};

/// What Cluster Autoscaler reads of a group that has no node.
const TEMPLATE: &str = "k8s.io/cluster-autoscaler/node-template";

/// Gibibytes of a node's disk that are not for Pods.
const SYSTEM: u32 = 15;

pub fn groups(pools: &Pools, groups: &Groups, facts: &[Facts]) -> Value {
    let managed = facts.iter().flat_map(|facts| groups.zones.iter().map(move |zone| group(pools, groups, facts, zone)));
    json!({
        "apiVersion": "eksctl.io/v1alpha5",
        "kind": "ClusterConfig",
        "metadata": { "name": pools.cluster, "region": groups.region },
        "managedNodeGroups": managed.collect::<Vec<_>>(),
    })
}

fn group(pools: &Pools, groups: &Groups, facts: &Facts, zone: &str) -> Value {
    let taints: Vec<_> = [facts.taint()].into_iter().chain(facts.startup.clone()).collect();
    let Machines { family, types, disk } = machines(facts.runtime);
    json!({
        "name": format!("{}-{zone}", name(facts)),
        "availabilityZones": [zone],
        "amiFamily": family,
        "instanceTypes": types,
        "minSize": 0,
        "desiredCapacity": 0,
        "maxSize": groups.nodes,
        "volumeSize": disk,
        "volumeType": "gp3",
        "volumeEncrypted": true,
        "privateNetworking": true,
        // A Pod in a network of its own does not get the node's credentials.
        "disableIMDSv1": true,
        "disablePodIMDS": true,
        "labels": facts.labels(),
        "taints": taints,
        "tags": tags(pools, facts, zone, disk),
        "propagateASGTags": true,
    })
}

/// What a group's nodes are. Of one size: Cluster Autoscaler takes all of a group to be alike.
struct Machines {
    family: &'static str,
    types: &'static [&'static str],
    disk: u32,
}

fn machines(runtime: Runtime) -> Machines {
    let (family, types, disk): (_, &[_], _) = match runtime {
        Runtime::Default => ("AmazonLinux2023", &["m6i.xlarge", "m6a.xlarge", "m5.xlarge"], DISK),
        Runtime::Sysbox => ("Ubuntu2404", &["m6i.xlarge", "m6a.xlarge", "m5.xlarge"], DISK),
        // A managed group drops the option for nested virtualization (aws/containers-roadmap#2784): whole machines.
        Runtime::Microvm => ("AmazonLinux2023", &["m5.metal", "m5d.metal"], LARGE_DISK),
    };
    Machines { family, types, disk }
}

/// So that the group is found, and known while it has no node. eksctl adds the startup taint by itself, which Cluster
/// Autoscaler is told to overlook (`--startup-taint`).
fn tags(pools: &Pools, facts: &Facts, zone: &str, disk: u32) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::from([
        ("k8s.io/cluster-autoscaler/enabled".to_owned(), "true".to_owned()),
        (format!("k8s.io/cluster-autoscaler/{}", pools.cluster), "owned".to_owned()),
        (format!("{TEMPLATE}/label/topology.kubernetes.io/zone"), zone.to_owned()),
        // Else it believes that there is none, and that no sandbox fits.
        (format!("{TEMPLATE}/resources/ephemeral-storage"), format!("{}Gi", disk - SYSTEM)),
    ]);
    let labels = facts.labels().into_iter();
    tags.extend(labels.map(|(key, value)| (format!("{TEMPLATE}/label/{key}"), value.to_owned())));
    let taint = facts.taint();
    tags.insert(format!("{TEMPLATE}/taint/{}", taint.key), taint.tag());
    tags
}
