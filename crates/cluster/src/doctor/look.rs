//! What a cluster shows to the user who asks.

use std::fmt::Debug;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::{Leader, PodSecurity, Seen, Sight, User, Where};
use crate::engine::{Error, ErrorKind};
use crate::install::{Right, rights};
use crate::operator::LEASE_NAME;
use crate::resources::definitions;

/// Questions about rights at a time.
const AT_ONCE: usize = 8;

/// Looks at everything that matters to Garth.
///
/// # Errors
/// When the API server cannot be reached.
pub async fn look(client: &Client, asked: &Where) -> Result<Seen, Error> {
    let version = client.apiserver_version().await.map_err(|error| Error::because(ErrorKind::NoCluster, error))?;
    // Some add a plus sign.
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let names: Vec<String> = definitions().iter().map(|definition| definition.name_any()).collect();
    let there = all::<CustomResourceDefinition>(client).await;
    Ok(Seen {
        version: (number(&version.major), number(&version.minor), version.git_version),
        definitions: there.map(|there| there.into_iter().filter(|one| names.contains(&one.name_any())).collect()),
        classes: all(client).await,
        runtime_classes: all(client).await,
        nodes: all(client).await,
        storage_classes: all(client).await,
        leader: leader(client, asked).await,
        operators: replicas(client, asked, "garth-operator").await,
        gateways: replicas(client, asked, "garth-gateway").await,
        projects: pod_security(client, asked).await,
        user: user(client, asked).await,
    })
}

fn why(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

async fn all<K>(client: &Client) -> Sight<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let list = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    list.map(|list| list.items).map_err(|error| why(&error))
}

async fn leader(client: &Client, asked: &Where) -> Sight<Option<Leader>> {
    let lease = Api::<Lease>::namespaced(client.clone(), &asked.namespace).get_opt(LEASE_NAME).await;
    let spec = lease.map_err(|error| why(&error))?.and_then(|lease| lease.spec);
    Ok(spec.and_then(|spec| {
        let renewed = spec.renew_time.map(|time| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time.0));
        Some(Leader { name: spec.holder_identity?, renewed })
    }))
}

async fn replicas(client: &Client, asked: &Where, name: &str) -> Sight<Option<(i32, i32)>> {
    let deployment = Api::<Deployment>::namespaced(client.clone(), &asked.namespace).get_opt(name).await;
    Ok(deployment.map_err(|error| why(&error))?.map(|deployment| {
        let ready = deployment.status.and_then(|status| status.ready_replicas).unwrap_or(0);
        (ready, deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1))
    }))
}

async fn pod_security(client: &Client, asked: &Where) -> Sight<Option<PodSecurity>> {
    let namespace = Api::<Namespace>::all(client.clone()).get_opt(&asked.projects).await;
    Ok(namespace.map_err(|error| why(&error))?.map(|namespace| PodSecurity {
        enforced: namespace.labels().get("pod-security.kubernetes.io/enforce").cloned(),
    }))
}

/// Who asks; an account of Garth's is asked for its own rights alone.
async fn user(client: &Client, asked: &Where) -> Sight<User> {
    let review = Api::all(client.clone()).create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let status = review.map_err(|error| why(&error))?.status;
    let name = status.and_then(|status| status.user_info?.username).unwrap_or_default();
    let mut lacks = Vec::new();
    let parts = ["operator", "gateway"];
    let account = |part: &str| name == format!("system:serviceaccount:{}:garth-{part}", asked.namespace);
    let is_ours = parts.into_iter().any(account);
    for part in parts.into_iter().filter(|part| !is_ours || account(part)) {
        lacks.push((part, lacking(client, rights(part, asked)).await?));
    }
    Ok(User { name, lacks })
}

/// Those of the rights that the user has not.
async fn lacking(client: &Client, rights: Vec<Right>) -> Sight<Vec<String>> {
    let asked = rights.into_iter().map(|right| async move {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes(&right)),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await;
        let allowed = answer.map_err(|error| why(&error))?.status.is_some_and(|status| status.allowed);
        Ok((!allowed).then(|| format!("{} {}", right.verb, right.resource)))
    });
    let answers: Vec<Sight<Option<String>>> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    let lacking: Sight<Vec<Option<String>>> = answers.into_iter().collect();
    Ok(lacking?.into_iter().flatten().collect())
}

fn attributes(right: &Right) -> ResourceAttributes {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, sub)) => (resource, Some(sub.to_owned())),
        None => (right.resource.as_str(), None),
    };
    ResourceAttributes {
        group: Some(right.group.clone()),
        resource: Some(resource.to_owned()),
        subresource,
        verb: Some(right.verb.clone()),
        namespace: right.namespace.clone(),
        ..ResourceAttributes::default()
    }
}
