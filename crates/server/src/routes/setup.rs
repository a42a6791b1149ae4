use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use garth_api::{ErrorBody, ErrorCode, GuestFiles, SetupEvent, SetupMicrovm, SetupProgress, SetupStep};
use garth_engine::{GuestReport, KernelSource, Progress, Step};
use http::header::CONTENT_TYPE;
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::input::Json;
use crate::router::App;
use crate::view;

/// Lines ahead of a slow reader; progress beyond is left out.
const AHEAD: usize = 16;

/// Makes what microVMs start from. The answer is a line of JSON whenever there is progress; the last says how it ended.
/// It goes on when the answer is no longer read.
#[utoipa::path(
    post, path = "/v1/setup/microvm", request_body = SetupMicrovm,
    responses(
        (status = 200, content_type = "application/x-ndjson", body = SetupEvent),
        (status = "4XX", body = ErrorBody)
    )
)]
pub(crate) async fn microvm(State(app): State<App>, Json(ask): Json<SetupMicrovm>) -> Result<Response, Failure> {
    let kernel = kernel(ask)?;
    let engine =
        app.engine.local("to set this machine up", "the nodes of a cluster are set up by who runs it")?.clone();
    let (sender, events) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let progress = sender.clone();
        let say = move |how_far| drop(progress.try_send(SetupEvent::Progress(seen(how_far))));
        let last = match engine.setup_microvm(kernel, say).await {
            Ok(report) => SetupEvent::Done(files(report)),
            Err(error) => SetupEvent::Failed(Failure::from(error).into_error()),
        };
        // Whoever asked may be gone.
        let _ = sender.send(last).await;
    });
    let lines = stream::unfold(events, async |mut events| {
        let event = events.recv().await?;
        Some((serde_json::to_vec(&event).map(|json| Bytes::from([&json[..], b"\n"].concat())), events))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn kernel(ask: SetupMicrovm) -> Result<KernelSource, Failure> {
    let refuse = |what: &str| Err(Failure::new(ErrorCode::InvalidRequest, what));
    match (ask.kernel, ask.modules) {
        (None, None) => Ok(KernelSource::Distribution),
        (None, Some(_)) => refuse("modules without a kernel"),
        (Some(kernel), modules)
            if !kernel.is_absolute() || modules.as_ref().is_some_and(|path| !path.is_absolute()) =>
        {
            refuse("a kernel and its modules are named by paths that begin with /")
        }
        (Some(kernel), modules) => Ok(KernelSource::File { kernel, modules }),
    }
}

fn seen(progress: Progress) -> SetupProgress {
    let step = match progress.step {
        Step::Find => SetupStep::Find,
        Step::Download => SetupStep::Download,
        Step::Unpack => SetupStep::Unpack,
        Step::Build => SetupStep::Build,
    };
    SetupProgress { step, done: progress.done, total: progress.total }
}

fn files(report: GuestReport) -> GuestFiles {
    let lacking = view::findings(report.lacking);
    GuestFiles { release: report.release, source: report.source, directory: report.directory, lacking }
}
