//! `/garth/guest/*`: what the host of a virtual machine asks of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use garth_spec::{GuestAgain, GuestBegin, GuestError, GuestFrozen, GuestPower, GuestPrepare};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::{GuestFailure, Kind, begin, disks, power};
use crate::plain::json;
use crate::server::{Answer, Site};
use crate::{Shared, reaper};

/// Paths that begin with this.
pub(crate) const PATHS: &str = "/garth/guest/";

/// An environment of 3 MiB, as text in JSON, and then some.
const LARGEST: usize = 16 << 20;
/// What processes have to end in before the machine goes.
const GRACE: Duration = Duration::from_secs(5);

/// A virtual machine that this agent is the init of.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    /// Locked while something of the machine changes.
    changing: Mutex<()>,
    /// The last that was told, 0 before the first.
    generation: AtomicU64,
    /// Once it has begun.
    held: OnceLock<begin::Held>,
}

impl Machine {
    /// Answers a request to [`PATHS`].
    pub(crate) async fn answer(&self, request: Request<Incoming>, site: &Site) -> Response<Answer> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "read the request", "only POST is known");
        }
        let body = match Limited::new(body, LARGEST).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return refuse(StatusCode::BAD_REQUEST, "read the request", &error.to_string()),
        };
        let _alone = self.changing.lock().await;
        let result = match head.uri.path().strip_prefix(PATHS).unwrap_or_default() {
            "prepare" => self.prepare(&body).and_then(answer),
            "begin" => self.begin(&body, site).and_then(answer),
            "again" => self.again(&body).and_then(answer),
            "limits" => self.limits(&body).and_then(answer),
            "freeze" => freeze(site).await.and_then(answer),
            "power" => power(&body, site).await,
            _ => return refuse(StatusCode::NOT_FOUND, "read the request", "no such path"),
        };
        result.unwrap_or_else(|failure| refused(&failure))
    }

    fn prepare(&self, body: &[u8]) -> Result<(), GuestFailure> {
        let order: GuestPrepare = parse(body)?;
        if self.generation.load(Ordering::Relaxed) != 0 {
            return Err(GuestFailure::new(Kind::Conflict, "prepare", "this machine has begun before"));
        }
        disks::prepare(order.usr.as_ref())
    }

    fn begin(&self, body: &[u8], site: &Site) -> Result<impl Serialize + use<>, GuestFailure> {
        let order: GuestBegin = parse(body)?;
        // A begin that failed half way is not tried again: the host makes a new machine.
        if self.generation.load(Ordering::Relaxed) != 0 || site.begun().is_some() {
            return Err(GuestFailure::new(Kind::Conflict, "begin", "this machine has begun before"));
        }
        self.advance(order.generation)?;
        let (held, state) = begin::begin(&order)?;
        let shared = Shared::new(order.agent, state)
            .map_err(|error| GuestFailure::new(Kind::Failed, "start the agent", error.to_string()))?;
        let begun = begin::begun()?;
        let _ = self.held.set(held);
        site.begin(shared);
        Ok(begun)
    }

    fn again(&self, body: &[u8]) -> Result<impl Serialize + use<>, GuestFailure> {
        let order: GuestAgain = parse(body)?;
        self.advance(order.generation)?;
        begin::again(self.held()?, &order)?;
        begin::begun()
    }

    fn limits(&self, body: &[u8]) -> Result<(), GuestFailure> {
        begin::limit(self.held()?, &parse(body)?)
    }

    fn held(&self) -> Result<&begin::Held, GuestFailure> {
        self.held.get().ok_or_else(not_yet)
    }

    fn advance(&self, generation: u64) -> Result<(), GuestFailure> {
        let last = self.generation.load(Ordering::Relaxed);
        if generation <= last {
            let why = format!("generation {generation} comes after {last}");
            return Err(GuestFailure::new(Kind::Conflict, "read the request", why));
        }
        self.generation.store(generation, Ordering::Relaxed);
        Ok(())
    }
}

async fn freeze(site: &Site) -> Result<GuestFrozen, GuestFailure> {
    agent(site)?;
    let settled = tokio::task::spawn_blocking(disks::settle).await;
    let failed = |why: String| GuestFailure::new(Kind::Failed, "write the disk out", why);
    let trimmed = settled.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    Ok(GuestFrozen { trimmed })
}

/// Answers only what went wrong.
async fn power(body: &[u8], site: &Site) -> Result<Response<Answer>, GuestFailure> {
    let order: GuestPower = parse(body)?;
    if let Some(shared) = site.begun() {
        reaper::shut_down(shared, GRACE).await;
    }
    Err(GuestFailure::new(Kind::Failed, "end the machine", power::end(order).to_string()))
}

fn agent(site: &Site) -> Result<&Arc<Shared>, GuestFailure> {
    site.begun().ok_or_else(not_yet)
}

fn not_yet() -> GuestFailure {
    GuestFailure::new(Kind::Conflict, "begin", "this machine has not begun")
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, GuestFailure> {
    serde_json::from_slice(body)
        .map_err(|error| GuestFailure::new(Kind::Invalid, "read the request", error.to_string()))
}

fn answer(value: impl Serialize) -> Result<Response<Answer>, GuestFailure> {
    let value = serde_json::to_value(value)
        .map_err(|error| GuestFailure::new(Kind::Failed, "write the answer", error.to_string()))?;
    Ok(json(StatusCode::OK, &value))
}

fn refused(failure: &GuestFailure) -> Response<Answer> {
    let status = match failure.kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refuse(status, &failure.step, &failure.source.to_string())
}

fn refuse(status: StatusCode, step: &str, error: &str) -> Response<Answer> {
    let error = GuestError { step: step.to_owned(), error: error.to_owned() };
    json(status, &serde_json::to_value(error).unwrap_or_default())
}

/// What everything else gets before a machine has begun.
pub(crate) fn not_begun() -> Response<Answer> {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "begin", "this machine has not begun")
}
