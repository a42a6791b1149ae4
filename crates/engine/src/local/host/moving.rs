//! A project's files from one form of disk to the other: streamed from an agent to an agent, checked by digest.
//!
//! ```text
//!  tree --native sandbox--> GET /garth/move --+--> PUT /garth/move <--machine-- guest disk      (to microvm)
//!  guest disk --machine---> GET /garth/move --+--> PUT /garth/move <--native sandbox-- tree     (and back)
//! ```
//!
//! Both ends are sandboxes of their own that nobody else talks to and that have no network; the host opens no file of
//! either. Of the machine's own /usr only what the project changed travels. Which form counts is decided by one rename:
//! the guest disk that is there counts. Until the project's new sandbox has started, the old form stays as it was.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use garth_runtime::Volume;
use garth_spec::{Handler, Limits, Network, ProjectSpec, SandboxId};
use garth_storage::{Disk, GuestContents, GuestDisk};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use serde::Deserialize;

use super::failure::Explain as _;
use super::sandbox::{HostSandbox, Running};
use super::{Host, order, unconnected};
use crate::agent::{Agent, Body};
use crate::error::{Error, ErrorKind};
use crate::local::{Lease, Live, Order};
use crate::project::{Project, random_bits};
use crate::shutdown::{WRITTEN_WITHIN, power_off};

/// Where both ends see the machine's own /usr alone.
pub(super) const BASE: &str = "/run/garth/base/usr";

/// Longer than any disk takes that a user would wait for.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);
/// How many things that the other side cannot have are named in the log.
const NAMED: usize = 10;

/// What was read or written.
#[derive(Debug, Deserialize)]
struct Summary {
    digest: String,
    entries: u64,
    bytes: u64,
}

/// What the receiving agent says.
#[derive(Debug, Deserialize)]
struct Received {
    #[serde(flatten)]
    sent: Summary,
    kept: Summary,
    skipped: Vec<Skipped>,
    skipped_count: u64,
    mounts: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Skipped {
    path: String,
    what: String,
}

impl Host {
    /// Fills a guest disk with what is in the project's tree, which stays. The guest disk is the project's from then on.
    pub(super) fn move_to_guest(&self, project: &Project, handler: Handler, disk: &Disk) -> Result<GuestDisk, Error> {
        let pool = self.pool()?;
        let draft = pool.draft_guest_disk(disk, project.spec.limits.disk, GuestContents::Nothing).explain()?;
        let source = self.native_mover(project, disk)?;
        let moved = self.machine_mover(project, handler, draft.disk()).and_then(|target| {
            let moved = carry(&source.agent, &target.agent, disk);
            finish(&target, moved)
        });
        source.sandbox.destroy().and(moved)?;
        draft.publish().explain()
    }

    /// Fills the project's tree, which is emptied for it, with what is on its guest disk. That stays the project's until
    /// it is removed.
    pub(super) fn move_to_tree(&self, project: &Project, disk: &Disk, guest: &GuestDisk) -> Result<(), Error> {
        let handler = crate::doctor::handler(garth_spec::Runtime::Microvm.into(), &self.here())?;
        self.pool()?.empty_disk(disk, project.spec.limits.disk).explain()?;
        let source = self.machine_mover(project, handler, guest)?;
        let moved = self.native_mover(project, disk).and_then(|target| {
            let moved = carry(&source.agent, &target.agent, disk);
            target.sandbox.destroy().and(moved)
        });
        finish(&source, moved)
    }

    /// A sandbox of the default level on the project's tree, for us alone.
    fn native_mover(&self, project: &Project, disk: &Disk) -> Result<Live, Error> {
        let project = quiet(project);
        let netns = garth_network::Network::loopback_only().explain()?;
        let order = Order { id: new_id(), project: &project, lease: unconnected(Some(netns), None) };
        let mut plan = order::plan(&order, disk, &self.data_dir, None);
        if disk.root().usr.is_some() {
            plan.volumes.push(Volume { host: "/usr".into(), at: BASE.to_owned(), read_only: true });
        }
        let Lease { netns, .. } = order.lease;
        let sandboxes = self.sandboxes()?;
        let sandbox = sandboxes.start(order.id, &plan, netns).explain()?;
        HostSandbox::adopt(sandboxes, Running::Native(sandbox))
    }

    /// A machine on a guest disk, for us alone.
    fn machine_mover(&self, project: &Project, handler: Handler, disk: &GuestDisk) -> Result<Live, Error> {
        let project = quiet(project);
        let order = Order { id: new_id(), project: &project, lease: unconnected(None, None) };
        self.start_machine(order, handler, disk, Some(BASE))
    }
}

pub(super) fn new_id() -> SandboxId {
    SandboxId::from_bits(random_bits())
}

/// The project without anything that would run, reach or hide something.
pub(super) fn quiet(project: &Project) -> Project {
    let limits = Limits { memory: project.spec.limits.memory.max(Limits::default().memory), ..project.spec.limits };
    let spec = ProjectSpec { limits, network: Network::None, ..ProjectSpec::default() };
    Project { spec, sandbox: None, ..project.clone() }
}

/// A guest that has written its disk out ends by itself.
fn finish(machine: &Live, moved: Result<(), Error>) -> Result<(), Error> {
    if moved.is_ok() {
        tokio::runtime::Handle::current().block_on(power_off(machine, WRITTEN_WITHIN));
    }
    machine.sandbox.destroy().and(moved)
}

fn carry(source: &Arc<Agent>, target: &Arc<Agent>, disk: &Disk) -> Result<(), Error> {
    let base = disk.root().usr.as_ref().map(|_| format!("base=%2Fusr%3D{}", BASE.replace('/', "%2F")));
    let work = stream(source, target, base.unwrap_or_default());
    let moved = tokio::runtime::Handle::current().block_on(async { tokio::time::timeout(PATIENCE, work).await });
    moved.map_err(|error| Error::because(ErrorKind::Agent, error))?.map_err(|error| error.step("move the files"))
}

async fn stream(source: &Arc<Agent>, target: &Arc<Agent>, base: String) -> Result<(), Error> {
    let nothing = || Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    let files = send(source, Request::get(format!("/garth/move?{base}")).body(nothing())).await?;
    let body: Body = files.into_body().map_err(Into::into).boxed_unsync();
    let answer = send(target, Request::put(format!("/garth/move?{base}")).body(body)).await?;
    let received: Received = read(answer).await?;
    tell(&received);
    let omitted: String = received.mounts.iter().map(|path| format!("&omit={}", encoded(path))).collect();
    let manifest = send(target, Request::get(format!("/garth/manifest?{base}{omitted}")).body(nothing())).await?;
    let found: Summary = read(manifest).await?;
    match found.digest == received.kept.digest {
        true => Ok(()),
        false => Err(Error::because(ErrorKind::Moved, format!("{} files were read again", found.entries))),
    }
}

/// What the other side cannot have is not kept quiet.
fn tell(received: &Received) {
    let Received { sent, kept, skipped, skipped_count, .. } = received;
    tracing::info!(entries = sent.entries, bytes = sent.bytes, "moved a project's files");
    if sent.digest != kept.digest {
        let named: Vec<_> = skipped.iter().take(NAMED).map(|one| format!("{} ({})", one.path, one.what)).collect();
        tracing::warn!(count = skipped_count, named = named.join(", "), "the other level has no such thing");
    }
}

async fn send(
    agent: &Arc<Agent>,
    request: http::Result<Request<Body>>,
) -> Result<http::Response<hyper::body::Incoming>, Error> {
    let request = request.map_err(|error| Error::because(ErrorKind::Agent, error))?;
    let path = request.uri().path().to_owned();
    let answer = Arc::clone(agent).link().await?.send(request).await?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let said = crate::agent::bounded(answer).await.unwrap_or_default();
    Err(Error::because(ErrorKind::Moved, format!("{path}: {status}: {}", String::from_utf8_lossy(&said))))
}

async fn read<T: serde::de::DeserializeOwned>(answer: http::Response<hyper::body::Incoming>) -> Result<T, Error> {
    let said = crate::agent::bounded(answer).await?;
    serde_json::from_slice(&said).map_err(|error| Error::because(ErrorKind::Moved, error))
}

/// Every byte but letters and digits, as a URI has it.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_query_is_encoded_byte_by_byte() {
        assert_eq!(encoded("/a b&ä"), "%2Fa%20b%26%C3%A4");
    }

    #[test]
    fn an_answer_of_the_receiving_agent_is_understood() {
        let text = r#"{"digest":"a","entries":3,"bytes":4,"kept":{"digest":"b","entries":2,"bytes":4},
                       "skipped":[{"path":"/dev/x","what":"device"}],"skipped_count":1,"mounts":["/proc"]}"#;
        let received: Received = serde_json::from_str(text).expect("an answer");
        assert_eq!((received.sent.entries, received.kept.digest.as_str(), received.mounts.len()), (3, "b", 1));
    }
}
