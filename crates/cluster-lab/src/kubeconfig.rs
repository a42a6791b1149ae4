//! Files by which a client finds the API server and says who it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::certificates::Identity;

/// One that needs no other file. JSON is YAML.
pub fn kubeconfig(server: &str, authority: &str, user: &Value) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{
            "name": "lab",
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(authority) },
        }],
        "users": [{ "name": "lab", "user": user }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
    })
    .to_string()
}

/// One whom the API server knows by a certificate.
pub fn certified(user: &Identity) -> Value {
    let encode = |pem: &str| STANDARD.encode(pem);
    json!({ "client-certificate-data": encode(&user.certificate), "client-key-data": encode(&user.key) })
}

/// One whom it knows by a token: a service account.
pub fn bearer(token: &str) -> Value {
    json!({ "token": token })
}
