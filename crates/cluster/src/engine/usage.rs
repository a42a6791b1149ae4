//! What a sandbox uses, as its own agent says. One that lies deceives whoever owns it, and nobody else.

use std::time::Duration;

use buffa::Message as _;
use bytes::Bytes;
use garth_protocol::agent::UsageResponse;
use garth_spec::pod;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, Full, Limited};

use super::{Engine, disk_limit, wait};
use crate::resources::Project;

/// A project is shown without these numbers rather than late.
const WITHIN: Duration = Duration::from_secs(2);
/// Bytes of an answer.
const LARGEST: usize = 4096;

/// What a sandbox uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory that could not be given back at once.
    pub memory: u64,
    /// Processor time since its start, in microseconds.
    pub cpu_micros: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Processes ended since its start because memory ran out.
    pub oom_kills: u64,
    /// Bytes on the project's disk; none where the disk is a directory of something larger, as with `local-path`.
    pub disk: Option<u64>,
}

impl Engine {
    /// What the running sandbox of a project uses; none while none runs, or when it does not say so.
    pub async fn usage(&self, project: &Project) -> Option<Usage> {
        let answer = tokio::time::timeout(WITHIN, self.ask_usage(project)).await.ok()??;
        let disk = (answer.disk_total > 0).then_some(answer.disk_used);
        Some(Usage {
            memory: answer.memory_used,
            cpu_micros: answer.cpu_micros,
            pids: answer.pids.into(),
            oom_kills: answer.oom_kills,
            disk: disk.filter(|_| disk_limit(project).is_some_and(|limit| answer.disk_total <= limit.bytes())),
        })
    }

    async fn ask_usage(&self, project: &Project) -> Option<UsageResponse> {
        let link = self.link(project, wait::address(project)?).await.ok()?;
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        let request = Request::post(pod::USAGE).header(CONTENT_TYPE, "application/proto").body(body).ok()?;
        let answer = link.send(request).await.ok().filter(|answer| answer.status().is_success())?;
        let body = Limited::new(answer.into_body(), LARGEST).collect().await.ok()?.to_bytes();
        UsageResponse::decode_from_slice(&body).ok()
    }
}
