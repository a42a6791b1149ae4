use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use garth_spec::{
    Accelerator, ByteSize, Capabilities, CpuCount, Handler, ImageId, Limits, Network, ProjectId, ProjectName,
    ProjectSpec, ProjectState, Runtime, RuntimeChoice, SandboxId, Volume,
};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{NewSpec, Verified};

/// `POST /v1/projects`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct CreateProject {
    /// Its name; a made-up one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<ProjectName>,
    /// Whether it is removed once no one holds it (`/hold`) any more.
    pub ephemeral: bool,
    /// What is asked of it. With `at_least` and without `runtime` it gets the weakest runtime that works here, can do
    /// what is asked, and is that or stronger.
    #[cfg_attr(feature = "openapi", schema(value_type = ProjectSpec))]
    pub spec: NewSpec,
}

/// A project as `GET /v1/projects/{name}` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// What users call it.
    pub name: ProjectName,
    /// Its id for its whole life.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: ProjectId,
    /// Where it stands.
    pub state: ProjectState,
    /// Whether it goes with its last hold.
    pub ephemeral: bool,
    /// What was asked of it.
    pub spec: ProjectSpec,
    /// The image content that its disk began as.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub image_id: Option<ImageId>,
    /// How it is isolated.
    pub runtime: RuntimeReport,
    /// The sandbox's id, running or paused.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub sandbox_id: Option<SandboxId>,
    /// The running sandbox's init, as the host numbers it.
    pub pid: Option<i32>,
    /// The running sandbox's addresses; none with network `none`.
    pub addresses: Option<Addresses>,
    /// What the running sandbox uses; only when one project is asked for.
    pub usage: Option<Usage>,
    /// What its disk uses; only when one project is asked for.
    pub disk: Option<DiskUse>,
    /// When it was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: Timestamp,
    /// When its sandbox last started.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub started_at: Option<Timestamp>,
    /// What the start of its sandbox waits for, on a cluster; none when it waits for nothing that has a name.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// How its last sandbox ended, or why it did not start.
    pub ended: Option<Ended>,
    /// How the last check of its boundary ended; none while there was none.
    pub verified: Option<Verified>,
}

/// All projects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ProjectList {
    /// By name.
    pub projects: Vec<Project>,
}

/// Why a project that is to run does not yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    /// One word for programs, such as `NodeComing` (docs/eks.md has those about nodes).
    pub reason: String,
    /// What it waits for and what helps, for people.
    pub message: String,
    /// Since when it waits for a node.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub since: Option<Timestamp>,
}

/// The runtime asked for, and the one that carries it out now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RuntimeReport {
    /// What was asked for.
    pub requested: RuntimeChoice,
    /// What the running sandbox has; none while none runs.
    pub effective: Option<Runtime>,
    /// What carries it out; none while none runs.
    pub handler: Option<Handler>,
    /// What runs a microVM's instructions: with `tcg`, QEMU translates them, which is slow, and the boundary is a program's
    /// and not the processor's. None at the other levels, and while none runs.
    #[serde(default)]
    pub accelerator: Option<Accelerator>,
}

/// Where a sandbox is reached, from the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// Its IPv4 address.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub ipv6: Option<Ipv6Addr>,
}

/// What a running sandbox uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Bytes of memory, page cache included.
    pub memory: u64,
    /// Microseconds of processor time since it started.
    pub cpu_micros: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Times the kernel killed something in it for memory.
    pub oom_kills: u64,
}

/// What a project's disk uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskUse {
    /// Bytes used; none where the pool cannot tell.
    pub used: Option<u64>,
    /// Bytes at most; none where the pool cannot hold it to a limit (overlay driver).
    pub limit: Option<u64>,
}

/// How the last sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Why.
    pub reason: EndedReason,
    /// More of it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Why a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EndedReason {
    /// Someone stopped it.
    Stopped,
    /// Its agent ended by itself or was killed.
    Died,
    /// A process in it called reboot(2) to restart it, and it is started again.
    Rebooted,
    /// A process in it called reboot(2) to restart it, as others did right before: it stays stopped.
    RebootLoop,
    /// A process in it called reboot(2) to switch it off.
    PoweredOff,
    /// It was gone when the daemon came back: the machine restarted, or something outside killed it.
    Lost,
    /// It could not be started.
    StartFailed,
    /// Nothing went on in it: the next request starts it again. On a cluster alone.
    Idle,
}

/// `PATCH /v1/projects/{name}`: a JSON merge patch (RFC 7396) of the project's spec. What is absent
/// stays; `null` puts an optional value back to nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ProjectPatch {
    /// Applied at once to a running sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsPatch>,
    /// Stops the sandbox; the next start has the new boundary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeChoice>,
    /// At the next start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// At the next start. `null` takes a variable away.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Option<String>>,
    /// At the next start.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub user: Option<Option<String>>,
    /// At the next start.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub workdir: Option<Option<String>>,
    /// At the next start.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub init: Option<Option<String>>,
    /// At the next start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privs: Option<bool>,
    /// At the next start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// At the next start, in place of what was asked before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// At the next start, by where each is in the sandbox. `null` takes one away.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Volume>))]
    pub volumes: BTreeMap<String, Option<Volume>>,
    /// At once. `null` takes a label away.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
}

/// The limits to change.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LimitsPatch {
    /// Memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<CpuCount>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Disk in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
    /// Bytes a second from and to the disk. `null` takes the limit away.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<ByteSize>))]
    pub disk_rate: Option<Option<ByteSize>>,
    /// Reads and writes of the disk a second. `null` takes the limit away.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>))]
    pub disk_iops: Option<Option<u32>>,
    /// Bytes a second from and to the network. `null` takes the limit away.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<ByteSize>))]
    pub network_rate: Option<Option<ByteSize>>,
}

/// What a patch led to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// The project as it is now.
    pub project: Project,
    /// The fields that wait for the next start, because a sandbox runs.
    pub at_next_start: Vec<String>,
    /// Whether the sandbox was stopped for it.
    pub stopped: bool,
}

/// `POST /v1/projects/{name}/stop` and `/restart`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct StopRequest {
    /// Milliseconds between SIGTERM and SIGKILL; 2000 when absent, 0 kills at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// `null` as `Some(None)`, so that it differs from absent.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl LimitsPatch {
    /// The limits with the change made.
    #[must_use]
    pub fn apply(&self, to: Limits) -> Limits {
        Limits {
            memory: self.memory.unwrap_or(to.memory),
            cpus: self.cpus.unwrap_or(to.cpus),
            pids: self.pids.unwrap_or(to.pids),
            disk: self.disk.unwrap_or(to.disk),
            disk_rate: self.disk_rate.unwrap_or(to.disk_rate),
            disk_iops: self.disk_iops.unwrap_or(to.disk_iops),
            network_rate: self.network_rate.unwrap_or(to.network_rate),
        }
    }
}

impl ProjectPatch {
    /// The spec with the change made.
    #[must_use]
    pub fn apply(&self, to: &ProjectSpec) -> ProjectSpec {
        ProjectSpec {
            image: to.image.clone(),
            runtime: self.runtime.unwrap_or(to.runtime),
            at_least: to.at_least,
            limits: self.limits.map_or(to.limits, |limits| limits.apply(to.limits)),
            network: self.network.unwrap_or(to.network),
            env: merged(&to.env, &self.env),
            user: self.user.clone().unwrap_or_else(|| to.user.clone()),
            workdir: self.workdir.clone().unwrap_or_else(|| to.workdir.clone()),
            init: self.init.clone().unwrap_or_else(|| to.init.clone()),
            no_new_privs: self.no_new_privs.unwrap_or(to.no_new_privs),
            read_only: self.read_only.unwrap_or(to.read_only),
            capabilities: self.capabilities.clone().unwrap_or_else(|| to.capabilities.clone()),
            volumes: merged(&to.volumes, &self.volumes),
            labels: merged(&to.labels, &self.labels),
        }
    }
}

fn merged<T: Clone>(to: &BTreeMap<String, T>, patch: &BTreeMap<String, Option<T>>) -> BTreeMap<String, T> {
    let mut merged = to.clone();
    for (key, value) in patch {
        match value {
            Some(value) => drop(merged.insert(key.clone(), value.clone())),
            None => drop(merged.remove(key)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_only_what_it_names() {
        let spec = ProjectSpec {
            env: [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())].into(),
            at_least: Some(Runtime::Sysbox),
            user: Some("web".to_owned()),
            workdir: Some("/srv".to_owned()),
            ..ProjectSpec::default()
        };
        let patch: ProjectPatch =
            serde_json::from_str(r#"{"env": {"A": null, "C": "3"}, "user": null, "limits": {"pids": 99}}"#)
                .expect("a patch");
        let changed = patch.apply(&spec);
        assert_eq!(changed.env.into_iter().collect::<Vec<_>>(), [("B".into(), "2".into()), ("C".into(), "3".into())]);
        assert_eq!(changed.user, None);
        assert_eq!((changed.workdir, changed.at_least), (spec.workdir, Some(Runtime::Sysbox)));
        assert_eq!(changed.limits, Limits { pids: 99, ..spec.limits });
    }

    #[test]
    fn a_rate_is_taken_away_by_null() {
        let limits = Limits { disk_rate: Some(ByteSize::mib(1)), disk_iops: Some(99), ..Limits::default() };
        let patch: LimitsPatch =
            serde_json::from_str(r#"{"disk_rate": null, "network_rate": 1048576}"#).expect("a patch");
        let changed = patch.apply(limits);
        assert_eq!((changed.disk_rate, changed.disk_iops), (None, Some(99)));
        assert_eq!(changed.network_rate, Some(ByteSize::mib(1)));
    }

    #[test]
    fn the_image_cannot_be_patched() {
        let error = serde_json::from_str::<ProjectPatch>(r#"{"image": "debian"}"#).expect_err("image is fixed");
        assert!(error.to_string().contains("unknown field `image`"), "{error}");
    }

    #[test]
    fn a_patch_survives_the_wire() {
        let patch = ProjectPatch { user: Some(None), network: Some(Network::None), ..ProjectPatch::default() };
        let text = serde_json::to_string(&patch).expect("json");
        assert_eq!(serde_json::from_str::<ProjectPatch>(&text).ok(), Some(patch));
    }
}
