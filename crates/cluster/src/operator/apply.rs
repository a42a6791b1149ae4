//! Doing one thing that was decided.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::reconcile::Context;
use crate::decide::{FINALIZER, Intent, Standing};
use crate::render::{self, PROJECT_LABEL};
use crate::resources::{GROUP, OnDelete, Project};

/// Who the operator is to the API server's record of who wrote which field.
pub(super) const MANAGER: &str = "garth-operator";

/// Something that the API server did not do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// It said no, or nothing.
    #[error("{doing}: {said}")]
    Api {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        said: String,
        #[source]
        source: kube::Error,
    },
    /// Something of someone else's is in the way.
    #[error("{kind} {name} is there and is not this project's: delete it, or give the project another name")]
    Taken {
        /// What it is.
        kind: String,
        /// What it is called.
        name: String,
    },
}

pub(super) fn refused(doing: &'static str) -> impl Fn(kube::Error) -> Refused + Copy {
    move |source| {
        let said = match &source {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        };
        Refused::Api { doing, said, source }
    }
}

/// What became of something that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is so.
    Done,
    /// The project is another by now, and what else was decided may not be right for that.
    Outdated,
}

pub(super) async fn apply(context: &Context, project: &Project, intent: Intent) -> Result<Applied, Refused> {
    let name = project.name_any();
    let done = match intent {
        Intent::AddFinalizer => {
            return finalizers(context, project, |list| list.push(FINALIZER.to_owned())).await;
        }
        Intent::RemoveFinalizer => {
            let applied = finalizers(context, project, |list| list.retain(|name| name != FINALIZER)).await?;
            context.metrics.forget(project);
            return Ok(applied);
        }
        Intent::DeleteProject => {
            let projects: Api<Project> = of(context, project);
            let whole = json!({ "spec": { "disk": { "onDelete": OnDelete::Delete } } });
            let only =
                DeleteParams::default().preconditions(Preconditions { uid: project.uid(), resource_version: None });
            let delete = async {
                projects.patch(&name, &PatchParams::default(), &Patch::Merge(whole)).await?;
                projects.delete(&name, &only).await
            };
            gone(delete.await).map_err(refused("it cannot be deleted"))
        }
        Intent::CreateClaim(claim) => create(context, project, "its disk cannot be made", claim).await,
        Intent::GrowClaim(claim) => {
            let grown = claim.name_any();
            let size = json!({ "spec": { "resources": claim.spec.and_then(|spec| spec.resources) } });
            let claims: Api<PersistentVolumeClaim> = of(context, project);
            let grown = claims.patch(&grown, &PatchParams::default(), &Patch::Merge(size)).await;
            grown.map(drop).map_err(refused("its disk cannot grow"))
        }
        Intent::TakePod(taking) => {
            let (key, template) = taking.template.annotation();
            let patch = json!({ "metadata": {
                "resourceVersion": taking.version,
                "labels": { PROJECT_LABEL: name },
                "annotations": { key: template },
                "ownerReferences": [render::owner(project)],
            } });
            let pods: Api<Pod> = of(context, project);
            let taken = pods.patch(&taking.pod, &PatchParams::default(), &Patch::Merge(patch)).await;
            taken.map(drop).map_err(refused("a sandbox of a pool cannot be taken"))?;
            context.pools.taken(project);
            Ok(())
        }
        Intent::TakeClaim { claim } => {
            // Nothing owns a project's disk.
            let patch = json!({ "metadata": { "labels": { PROJECT_LABEL: name }, "ownerReferences": null } });
            let claims: Api<PersistentVolumeClaim> = of(context, project);
            let taken = claims.patch(&claim, &PatchParams::default(), &Patch::Merge(patch)).await;
            taken.map(drop).map_err(refused("the disk of its sandbox cannot be taken"))
        }
        Intent::DeleteClaim { claim } => {
            let claims: Api<PersistentVolumeClaim> = of(context, project);
            gone(claims.delete(&claim, &DeleteParams::default()).await).map_err(refused("its disk cannot be deleted"))
        }
        Intent::CreateSecret => {
            let mut random = [0; 32];
            getrandom::fill(&mut random).expect("getrandom(2) does not fail once the kernel has booted");
            let secrets: Api<Secret> = of(context, project);
            match secrets.create(&made_by(), &render::secret(project, random)).await {
                // The name is this project's alone.
                Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => Ok(()),
                made => made.map(drop).map_err(refused("its token cannot be kept")),
            }
        }
        Intent::ApplyPolicy(policy) => {
            let policies: Api<NetworkPolicy> = of(context, project);
            let (name, params) = (policy.name_any(), PatchParams::apply(MANAGER).force());
            let applied = policies.patch(&name, &params, &Patch::Apply(&policy)).await;
            applied.map(drop).map_err(refused("its network policy cannot be set"))
        }
        Intent::CreatePod(pod) => create(context, project, "its sandbox cannot be made", pod).await,
        Intent::ResizePod { pod, uid, resources } => {
            let pods: Api<Pod> = of(context, project);
            let containers = json!([{ "name": render::SANDBOX, "resources": resources }]);
            let patch = json!({ "metadata": { "uid": uid }, "spec": { "containers": containers } });
            let patch = Patch::Strategic(patch);
            let refused = refused("its limits cannot be changed");
            match pods.patch_subresource("resize", &pod, &PatchParams::default(), &patch).await {
                // Another Pod has the name by now.
                Err(kube::Error::Api(status)) if status.code == 409 => return Ok(Applied::Done),
                Err(kube::Error::Api(status)) if status.code == 429 => return Err(refused(kube::Error::Api(status))),
                // It runs as it is; its status says that the limits are its next sandbox's.
                Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                    tracing::warn!(project = name, said = status.message, "the limits of its sandbox stay");
                }
                resized => drop(resized.map_err(refused)?),
            }
            let (key, asked) = render::resources_annotation(&resources);
            let note = json!({ "metadata": { "uid": uid, "annotations": { key: asked } } });
            gone(pods.patch(&pod, &PatchParams::default(), &Patch::Merge(note)).await).map_err(refused)
        }
        Intent::DeletePod { pod, uid } => {
            let pods: Api<Pod> = of(context, project);
            let only = DeleteParams::default().preconditions(Preconditions { uid: Some(uid), resource_version: None });
            match gone(pods.delete(&pod, &only).await) {
                // Another Pod has the name by now.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                ended => ended.map_err(refused("its sandbox cannot be ended")),
            }
        }
        Intent::SetStatus(status) => {
            let projects: Api<Project> = of(context, project);
            let patch = json!({
                "apiVersion": format!("{GROUP}/v1alpha1"), "kind": Project::kind(&()),
                "metadata": { "name": name, "uid": project.uid() }, "status": status,
            });
            let params = PatchParams::apply(MANAGER).force();
            match projects.patch_status(&name, &params, &Patch::Apply(patch)).await {
                // It is another project by now, or none.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(Applied::Done),
                set => set.map_err(refused("its status cannot be set"))?,
            };
            context.metrics.told(project, &status);
            Ok(())
        }
        Intent::Tell(standing) => {
            tell(context, project, &standing);
            Ok(())
        }
    };
    done.map(|()| Applied::Done)
}

fn of<K>(context: &Context, project: &Project) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(context.client.clone(), &project.namespace().unwrap_or_default())
}

/// Makes an object; one of ours that is there already is as good.
async fn create<K>(context: &Context, project: &Project, doing: &'static str, object: K) -> Result<(), Refused>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let api: Api<K> = of(context, project);
    match api.create(&made_by(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {}
        made => return made.map(drop).map_err(refused(doing)),
    }
    let there = api.get_opt(&object.name_any()).await.map_err(refused(doing))?;
    let controller =
        |of: &K| of.owner_references().iter().find(|owner| owner.controller == Some(true)).map(|it| it.uid.clone());
    let is_ours = |there: &K| {
        // What a project of the same name has left behind is not this one's, unless nobody owns it.
        there.labels().get(render::PROJECT_LABEL) == Some(&project.name_any())
            && controller(there) == controller(&object)
    };
    match there {
        Some(there) if !is_ours(&there) => {
            Err(Refused::Taken { kind: K::kind(&()).into_owned(), name: object.name_any() })
        }
        _ => Ok(()),
    }
}

/// Against the version that was seen: someone else's finalizer is never lost.
async fn finalizers(
    context: &Context,
    project: &Project,
    change: impl FnOnce(&mut Vec<String>),
) -> Result<Applied, Refused> {
    let mut list = project.finalizers().to_vec();
    change(&mut list);
    let patch = json!({ "metadata": { "finalizers": list, "resourceVersion": project.resource_version() } });
    let projects: Api<Project> = of(context, project);
    let patched = projects.patch(&project.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    match patched {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Applied::Outdated),
        patched => patched.map(|_| Applied::Done).map_err(refused("its finalizer cannot be set")),
    }
}

pub(super) fn made_by() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

pub(super) fn gone<T>(deleted: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(drop),
    }
}

/// An event that cannot be written is no reason to stop.
fn tell(context: &Context, project: &Project, standing: &Standing) {
    let event = Event {
        type_: if standing.reason.is_trouble() { EventType::Warning } else { EventType::Normal },
        reason: standing.reason.word().to_owned(),
        note: Some(standing.message.chars().take(1000).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let (recorder, about) = (context.recorder.clone(), project.object_ref(&()));
    // Whoever waits for the project need not wait for that.
    tokio::spawn(async move {
        if let Err(error) = recorder.publish(&event, &about).await {
            tracing::debug!(%error, "an event was not taken");
        }
    });
}
