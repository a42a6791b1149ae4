//! The key that a sandbox's agent wants to see proven, and what it is told where the sandbox was there before its project.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::PoisonError;

use bytes::Bytes;
use garth_channel::sealed::Key;
use garth_spec::pod::{self, Binding};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::Engine;
use super::error::{Error, ErrorKind};
use super::link::{Link, Unanswered};
use crate::render::{self, TOKEN};
use crate::resources::{Project, SandboxStatus};

impl Engine {
    /// A way to the agent of a project's sandbox. This gateway's first way to a sandbox of a pool tells the agent whose it is.
    pub(super) async fn link(&self, project: &Project, address: IpAddr) -> Result<Link, Error> {
        let links = || self.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
        let sandbox = sandbox(project).cloned();
        let uid = sandbox.as_ref().map(|sandbox| sandbox.uid.clone()).unwrap_or_default();
        if let Some(link) = links().get(&uid).filter(|link| link.address() == address) {
            return Ok(link.clone());
        }
        let of_pool = sandbox.and_then(|sandbox| sandbox.secret);
        let secret = self.secret(&of_pool.clone().unwrap_or_else(|| render::secret_name(project))).await?;
        let key = secret.get(TOKEN).and_then(|token| Key::from_hex(std::str::from_utf8(&token.0).ok()?.trim()));
        let link = Link::new(address, key.ok_or(ErrorKind::Token)?);
        if of_pool.is_some() {
            self.bind(project, &link).await?;
        }
        let mut links = links();
        // Of sandboxes that are gone.
        let projects = self.shared.projects.all();
        links.retain(|uid, _| projects.iter().any(|project| self::sandbox(project).is_some_and(|it| it.uid == *uid)));
        links.insert(uid, link.clone());
        Ok(link)
    }

    async fn secret(&self, name: &str) -> Result<BTreeMap<String, ByteString>, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.shared.client.clone(), &self.shared.config.namespace);
        Ok(secrets.get(name).await?.data.unwrap_or_default())
    }

    /// Tells an agent whose it is. It may have been told before, by this gateway or another.
    async fn bind(&self, project: &Project, link: &Link) -> Result<(), Error> {
        let spec = &project.spec;
        let mut env = Vec::new();
        for name in &spec.env_from_secrets {
            let entries =
                self.secret(name).await.map_err(|error| error.doing("a Secret of the project cannot be read"))?;
            // As the kubelet does: what cannot be a variable is left out.
            env.extend(entries.into_iter().filter_map(|(name, value)| {
                let is_variable = !name.starts_with(|c: char| c.is_ascii_digit()) && !name.contains('=');
                Some((name, String::from_utf8(value.0).ok()?)).filter(|_| is_variable)
            }));
        }
        env.extend(spec.env.clone());
        let binding =
            Binding { env, workdir: spec.workdir.clone(), suspend_after_seconds: spec.idle.suspend_after_seconds };
        let body = serde_json::to_vec(&binding).map_err(|error| Error::because(ErrorKind::Agent, error))?;
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        let request = Request::post(pod::BIND).body(body).map_err(|error| Error::because(ErrorKind::Agent, error))?;
        let answer = link.send(request).await.map_err(Unanswered::into_error)?;
        if !answer.status().is_success() {
            let said = std::io::Error::other(format!("it answered {} to its project", answer.status()));
            return Err(Error::because(ErrorKind::Agent, said));
        }
        Ok(())
    }
}

fn sandbox(project: &Project) -> Option<&SandboxStatus> {
    project.status.as_ref()?.sandbox.as_ref()
}
