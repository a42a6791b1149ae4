//! What the programs of the control plane are told.

use anyhow::Result;

use crate::certificates::Authority;
use crate::kubeconfig::{certified, kubeconfig};
use crate::place::Place;
use crate::{API_SERVICE, SERVICE_RANGE};

/// Certificates and kubeconfigs of the control plane: files that the arguments below name.
pub fn prepare(place: &Place, authority: &Authority, server: &str) -> Result<()> {
    let node = place.node_address();
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"];
    let hosts: Vec<&str> = names.into_iter().chain([API_SERVICE, &node]).collect();
    authority.write_server("api-server", &hosts)?;
    let towards_kubelets = authority.user("kube-apiserver-kubelet-client", Some("system:masters"))?;
    authority.write("api-server-as-client", &towards_kubelets)?;
    for name in ["kube-controller-manager", "kube-scheduler"] {
        let user = authority.user(&format!("system:{name}"), None)?;
        let config = kubeconfig(server, authority.certificate(), &certified(&user));
        std::fs::write(authority.path(&format!("{name}.kubeconfig")), config)?;
    }
    Ok(())
}

/// A store that may lose what it said it kept: its disk goes with the lab.
pub fn etcd(place: &Place) -> Vec<String> {
    flags([
        ("data-dir", place.state().join("etcd").display().to_string()),
        ("unsafe-no-fsync", "true".to_owned()),
        ("listen-client-urls", "http://127.0.0.1:2379".to_owned()),
        ("advertise-client-urls", "http://127.0.0.1:2379".to_owned()),
        ("listen-peer-urls", "http://127.0.0.1:2380".to_owned()),
        ("log-level", "warn".to_owned()),
    ])
}

pub fn api_server(place: &Place, authority: &Authority) -> Vec<String> {
    flags([
        ("etcd-servers", "http://127.0.0.1:2379".to_owned()),
        // The port of the Service `kubernetes`, whose address the place has itself: Pods reach it without kube-proxy.
        ("secure-port", "443".to_owned()),
        ("advertise-address", place.node_address()),
        ("service-cluster-ip-range", SERVICE_RANGE.to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("client-ca-file", authority.path("ca.crt")),
        ("tls-cert-file", authority.path("api-server.crt")),
        ("tls-private-key-file", authority.path("api-server.key")),
        ("kubelet-certificate-authority", authority.path("ca.crt")),
        ("kubelet-client-certificate", authority.path("api-server-as-client.crt")),
        ("kubelet-client-key", authority.path("api-server-as-client.key")),
        // Nothing resolves the names of nodes.
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-account-key-file", authority.path("accounts.pub")),
        ("service-account-signing-key-file", authority.path("accounts.key")),
    ])
}

pub fn controller_manager(authority: &Authority) -> Vec<String> {
    flags([
        ("kubeconfig", authority.path("kube-controller-manager.kubeconfig")),
        ("leader-elect", "false".to_owned()),
        ("use-service-account-credentials", "true".to_owned()),
        ("service-account-private-key-file", authority.path("accounts.key")),
        ("root-ca-file", authority.path("ca.crt")),
        ("cluster-signing-cert-file", authority.path("ca.crt")),
        ("cluster-signing-key-file", authority.path("ca.key")),
    ])
}

pub fn scheduler(authority: &Authority) -> Vec<String> {
    flags([("kubeconfig", authority.path("kube-scheduler.kubeconfig")), ("leader-elect", "false".to_owned())])
}

/// `--name=value` of each.
pub fn flags<const N: usize>(pairs: [(&str, String); N]) -> Vec<String> {
    pairs.map(|(name, value)| format!("--{name}={value}")).to_vec()
}
