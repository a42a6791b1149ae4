use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::{owned, secret_name};
use crate::resources::Project;

/// The entry of the token in a project's Secret.
pub const TOKEN: &str = "token";

/// The key of a project's agent, which the gateway knows and nobody else: 256 random bits.
pub fn secret(project: &Project, random: [u8; 32]) -> Secret {
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Secret {
        metadata: owned(project, secret_name(project)),
        data: Some([(TOKEN.to_owned(), ByteString(token.into_bytes()))].into()),
        // A project's life long.
        immutable: Some(true),
        ..Secret::default()
    }
}
