//! Pools as Karpenter's objects: a NodePool and an EC2NodeClass for each runtime (`karpenter.sh/v1`, Karpenter 1.14).

use garth_spec::Runtime;
use serde_json::{Value, json};

use super::facts::Facts;
use super::{DISK, Karpenter, LARGE_DISK, Machines, Pools, name};

/// Canonical, whose images for EKS nodes Sysbox runs on.
const CANONICAL: &str = "099720109477";

pub fn pool(pools: &Pools, karpenter: &Karpenter, facts: &Facts) -> [Value; 2] {
    [node_class(pools, karpenter, facts), node_pool(karpenter, facts)]
}

fn node_pool(karpenter: &Karpenter, facts: &Facts) -> Value {
    let mut template = json!({
        "nodeClassRef": { "group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": name(facts) },
        "requirements": requirements(karpenter, facts.runtime),
        "taints": [facts.taint()],
        // Nodes older than that take no new sandbox, and go when the last of theirs does.
        "expireAfter": "720h",
    });
    if let Some(startup) = &facts.startup {
        template["startupTaints"] = json!([startup]);
    }
    json!({
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": { "name": name(facts) },
        "spec": {
            "template": { "metadata": { "labels": facts.labels() }, "spec": template },
            // A sandbox is never moved. Without a terminationGracePeriod, which would end it all the same.
            "disruption": {
                "consolidationPolicy": "WhenEmpty",
                "consolidateAfter": "10m",
                // Empty ones go all at once; one in ten at a time is what Karpenter does if nothing is said.
                "budgets": [{ "nodes": "100%", "reasons": ["Empty"] }, { "nodes": "10%", "reasons": ["Drifted"] }],
            },
            "limits": { "cpu": karpenter.cpus.to_string() },
        },
    })
}

fn requirements(karpenter: &Karpenter, runtime: Runtime) -> Vec<Value> {
    let within = |key: &str, values: &[&str]| json!({ "key": key, "operator": "In", "values": values });
    let more = |key: &str, than: &str| json!({ "key": key, "operator": "Gt", "values": [than] });
    let mut requirements = vec![
        within("kubernetes.io/os", &["linux"]),
        within("kubernetes.io/arch", &["amd64"]),
        // What is taken back at two minutes' notice ends what runs in it.
        within("karpenter.sh/capacity-type", &["on-demand"]),
    ];
    requirements.extend(match (runtime, karpenter.machines) {
        (Runtime::Microvm, Machines::Nested) => {
            // The EC2NodeClass leaves only those that can; named so that no other is tried.
            let families = ["c8i", "m8i", "r8i", "c8i-flex", "m8i-flex", "r8i-flex"];
            vec![within("karpenter.k8s.aws/instance-family", &families), more("karpenter.k8s.aws/instance-cpu", "3")]
        }
        (Runtime::Microvm, Machines::Metal) => {
            let sizes = ["metal", "metal-16xl", "metal-24xl", "metal-32xl", "metal-48xl"];
            vec![within("karpenter.k8s.aws/instance-size", &sizes)]
        }
        // Sysbox asks for 4 processors at least.
        (Runtime::Default | Runtime::Sysbox, _) => vec![
            within("karpenter.k8s.aws/instance-category", &["c", "m", "r"]),
            more("karpenter.k8s.aws/instance-generation", "5"),
            more("karpenter.k8s.aws/instance-cpu", "3"),
            within("karpenter.k8s.aws/instance-hypervisor", &["nitro"]),
        ],
    });
    requirements
}

fn node_class(pools: &Pools, karpenter: &Karpenter, facts: &Facts) -> Value {
    let ours = json!([{ "tags": { "karpenter.sh/discovery": pools.cluster } }]);
    let (root, image) = match facts.runtime {
        Runtime::Sysbox => ("/dev/sda1", ubuntu(pools, karpenter)),
        Runtime::Default | Runtime::Microvm => {
            ("/dev/xvda", json!({ "amiSelectorTerms": [{ "alias": "al2023@latest" }] }))
        }
    };
    let mut spec = image;
    spec["role"] = json!(karpenter.role);
    spec["subnetSelectorTerms"] = ours.clone();
    spec["securityGroupSelectorTerms"] = ours;
    let size = match (facts.runtime, karpenter.machines) {
        (Runtime::Microvm, Machines::Metal) => LARGE_DISK,
        _ => DISK,
    };
    let disk = json!({ "volumeSize": format!("{size}Gi"), "volumeType": "gp3", "encrypted": true, "deleteOnTermination": true });
    spec["blockDeviceMappings"] = json!([{ "deviceName": root, "ebs": disk }]);
    // One hop: a Pod in a network of its own does not get the node's credentials.
    spec["metadataOptions"] = json!({ "httpTokens": "required", "httpPutResponseHopLimit": 1 });
    if facts.runtime == Runtime::Microvm && karpenter.machines == Machines::Nested {
        spec["cpuOptions"] = json!({ "nestedVirtualization": "enabled" });
    }
    json!({
        "apiVersion": "karpenter.k8s.aws/v1",
        "kind": "EC2NodeClass",
        "metadata": { "name": name(facts) },
        "spec": spec,
    })
}

/// Of an image that is not of its own families Karpenter knows nothing: the node has to join by itself, and with the taint
/// without which Karpenter does not take it in.
fn ubuntu(pools: &Pools, karpenter: &Karpenter) -> Value {
    let image = format!("ubuntu-eks/k8s_{}/images/hvm-ssd*/ubuntu-noble-24.04-amd64-server-*", karpenter.version);
    let join = format!(
        "#!/bin/bash\n/etc/eks/bootstrap.sh '{}' --kubelet-extra-args \
         '--register-with-taints=karpenter.sh/unregistered=true:NoExecute'\n",
        pools.cluster
    );
    json!({
        "amiFamily": "Custom",
        "amiSelectorTerms": [{ "name": image, "owner": CANONICAL }],
        "userData": join,
    })
}
