use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::{NAME, PROJECT_LABEL, Settings, owned, policy_name};
use crate::resources::Project;

/// IPv4 that is not the public internet (RFC 6890): other Pods, nodes, the metadata address, and 100.64/10, which EKS
/// gives to Pods.
const PRIVATE_V4: [&str; 9] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
];

/// The same of IPv6; all that is public is below 2000::/3.
const PRIVATE_V6: [&str; 2] = ["2001:db8::/32", "2002::/16"];

/// No way out, as the API server gives it back: of an empty list it keeps nothing, and each look would find another policy than
/// was asked for.
const NOTHING: Option<Vec<NetworkPolicyEgressRule>> = None;

/// What reaches a sandbox, and what it reaches. The cluster's network plugin must carry NetworkPolicies out.
pub fn policy(project: &Project, settings: &Settings) -> NetworkPolicy {
    let name = project.name_any();
    let egress = match project.spec.network.as_str() {
        "internet" => Some(vec![names(), internet()]),
        _ => NOTHING,
    };
    let mut policy = closed(owned(project, policy_name(&name)), (PROJECT_LABEL, &name), settings);
    if let Some(spec) = &mut policy.spec {
        spec.egress = egress;
    }
    policy
}

/// Lets Garth's own requests in and nothing out.
pub(super) fn closed(metadata: ObjectMeta, label: (&str, &str), settings: &Settings) -> NetworkPolicy {
    NetworkPolicy {
        metadata,
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector([label])),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![gateway(settings)]),
            egress: NOTHING,
        }),
    }
}

/// Requests to the agent, from Garth's own Pods.
fn gateway(settings: &Settings) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        from: Some(vec![NetworkPolicyPeer {
            namespace_selector: Some(selector([("kubernetes.io/metadata.name", settings.namespace.as_str())])),
            pod_selector: Some(selector([NAME])),
            ip_block: None,
        }]),
        ports: Some(vec![port("TCP", garth_spec::pod::PORT)]),
    }
}

/// The cluster's own DNS, without which no name of the internet is found.
fn names() -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule {
        to: Some(vec![NetworkPolicyPeer {
            namespace_selector: Some(selector([("kubernetes.io/metadata.name", "kube-system")])),
            pod_selector: Some(selector([("k8s-app", "kube-dns")])),
            ip_block: None,
        }]),
        ports: Some(vec![port("UDP", 53), port("TCP", 53)]),
    }
}

fn internet() -> NetworkPolicyEgressRule {
    let block = |cidr: &str, except: &[&str]| NetworkPolicyPeer {
        ip_block: Some(IPBlock {
            cidr: cidr.to_owned(),
            except: Some(except.iter().map(|&range| range.to_owned()).collect()),
        }),
        ..NetworkPolicyPeer::default()
    };
    NetworkPolicyEgressRule {
        to: Some(vec![block("0.0.0.0/0", &PRIVATE_V4), block("2000::/3", &PRIVATE_V6)]),
        ports: None,
    }
}

fn selector<const N: usize>(labels: [(&str, &str); N]) -> LabelSelector {
    let labels: BTreeMap<_, _> = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

fn port(protocol: &str, port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(port.into())),
        ..NetworkPolicyPort::default()
    }
}
