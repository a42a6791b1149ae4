//! The machine as a node: containerd, runc under several names, a bridge for Pods, the kubelet, volumes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::Lab;
use crate::certificates::{Authority, path_text};
use crate::control_plane::flags;
use crate::image::PAUSE;
use crate::kubeconfig::{certified, kubeconfig};
use crate::place::Place;

/// The name of the node.
pub const NODE: &str = "lab-node";

/// What containerd knows runc as: the handlers of the RuntimeClasses.
const HANDLERS: [&str; 5] = ["runc", "sysbox-runc", "kata-qemu", "kata-fc", "kata-clh"];

/// What the installers of Sysbox and Kata say of a node that has them.
const LABELS: &str = "sysbox-runtime=running,katacontainers.io/kata-runtime=true";

/// Volumes that claims of any name find; one that was released is not used again.
const VOLUMES: u32 = 64;

const SOCKET: &str = "/run/containerd/containerd.sock";

/// Configuration of the node's programs.
pub fn prepare(place: &Place, authority: &Authority, server: &str, bin: &Path) -> Result<()> {
    let state = place.state();
    let user = authority.user(&format!("system:node:{NODE}"), Some("system:nodes"))?;
    fs::write(authority.path("kubelet.kubeconfig"), kubeconfig(server, authority.certificate(), &certified(&user)))?;
    authority.write_server("kubelet", &[NODE, &place.node_address()])?;
    for folder in ["handlers", "cni", "volumes", "kubelet"] {
        fs::create_dir_all(state.join(folder)).with_context(|| folder.to_owned())?;
    }
    for handler in HANDLERS {
        symlink(bin.join("runc"), state.join("handlers").join(handler))?;
    }
    fs::write(state.join("containerd.toml"), containerd_config(place, bin))?;
    fs::write(state.join("cni/10-lab.conflist"), network(place).to_string())?;
    fs::write(state.join("resolv.conf"), format!("nameserver {}\n", place.machine_address()))?;
    fs::write(state.join("kubelet.yaml"), kubelet_config(place, authority).to_string())?;
    Ok(())
}

pub fn containerd(place: &Place) -> Vec<String> {
    flags([("config", path_text(&place.state().join("containerd.toml")))])
}

fn containerd_config(place: &Place, bin: &Path) -> String {
    let (state, bin) = (place.state().display(), bin.display());
    let mut config = format!(
        r#"version = 3
root = "{state}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
# Lower than its own is refused to a containerd without CAP_SYS_RESOURCE.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{bin}"]
conf_dir = "{state}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
"#
    );
    for handler in HANDLERS {
        config += &format!(
            r#"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{handler}]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{handler}.options]
BinaryName = "{state}/handlers/{handler}"
SystemdCgroup = false
"#
        );
    }
    config
}

/// Without masquerading: the machine reaches each Pod by its address, and sees it come from there.
fn network(place: &Place) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "lab",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isGateway": true,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": place.pod_range() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

pub fn kubelet(place: &Place, authority: &Authority) -> Vec<String> {
    flags([
        ("config", path_text(&place.state().join("kubelet.yaml"))),
        ("kubeconfig", authority.path("kubelet.kubeconfig")),
        ("root-dir", path_text(&place.state().join("kubelet"))),
        ("hostname-override", NODE.to_owned()),
        ("node-ip", place.node_address()),
        ("node-labels", LABELS.to_owned()),
    ])
}

fn kubelet_config(place: &Place, authority: &Authority) -> serde_json::Value {
    let state = |name: &str| path_text(&place.state().join(name));
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": authority.path("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": authority.path("kubelet.crt"),
        "tlsPrivateKeyFile": authority.path("kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": place.cgroup(),
        "failCgroupV1": false,
        "failSwapOn": false,
        "podLogsDir": state("pods"),
        "resolvConf": state("resolv.conf"),
        "volumePluginDir": state("plugins"),
        // The machine's disk may be nearly full: that is none of the lab's business.
        "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        "imageGCHighThresholdPercent": 100,
    })
}

/// Whether the API server says that the node takes Pods.
pub fn is_ready(lab: &Lab) -> Result<bool> {
    let ready = "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    // Not there at first.
    Ok(lab.run(&["get", "node", NODE, ready]).is_ok_and(|status| status == "True") && is_healthy(lab)?)
}

/// Whether the kubelet has begun its work. When it was started again the API server knows it as ready from before.
fn is_healthy(lab: &Lab) -> Result<bool> {
    let mut ask = lab.command(lab.program("busybox"));
    Ok(ask.args(["wget", "-q", "-O-", "http://127.0.0.1:10248/healthz"]).output()?.status.success())
}

/// Folders of the machine as volumes, and their manifests.
pub fn volumes(place: &Place) -> Result<String> {
    let mut manifests = Vec::new();
    for number in 0..VOLUMES {
        let folder = place.state().join("volumes").join(number.to_string());
        fs::create_dir_all(&folder).context("a volume")?;
        let node = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [NODE] });
        manifests.push(json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": { "name": format!("local-{number}") },
            "spec": {
                "capacity": { "storage": "100Gi" },
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "local",
                "local": { "path": folder },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [node] }] } },
            },
        }));
    }
    Ok(json!({ "apiVersion": "v1", "kind": "List", "items": manifests }).to_string())
}
