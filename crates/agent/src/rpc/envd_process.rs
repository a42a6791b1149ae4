//! envd's `process.Process`: the same processes in the words of E2B's SDKs. It has no replay: who connects late gets what
//! comes next.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use connectrpc::{
    ConnectError, ErrorCode, InboundStream, RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream,
};
use futures::{StreamExt, stream};
use garth_protocol::agent::{EndReason, Ended, FailReason, Stream as Channel};
use garth_protocol::process::oneof::process_event::Event as Kind;
use garth_protocol::process::oneof::process_event::data_event::Output;
use garth_protocol::process::oneof::process_input::Input as Bits;
use garth_protocol::process::oneof::process_selector::Selector;
use garth_protocol::process::oneof::stream_input_request::Event as InputKind;
use garth_protocol::process::process_event::{DataEvent, EndEvent, KeepAlive, StartEvent};
use garth_protocol::process::{
    CloseStdinRequest, CloseStdinResponse, ConnectRequest, ConnectResponse, ListRequest, ListResponse, PTY,
    Process as Service, ProcessConfig, ProcessEvent, ProcessInfo, ProcessInput, ProcessSelector, SendInputRequest,
    SendInputResponse, SendSignalRequest, SendSignalResponse, StartRequest, StartResponse, StreamInputRequest,
    StreamInputResponse, UpdateRequest, UpdateResponse,
};
use rustix::process::Signal;

use crate::Shared;
use crate::process::{Attachment, Entry, Failure, Process, Request, Size, StartError};
use crate::rpc::follow::{Update, follow, ping_interval};
use crate::rpc::user;

/// The most output in one message; E2B's own agent sends no more, and its clients were only tested with that.
const LARGEST_PIECE: usize = 32 << 10;
/// How often an idle stream says that it is alive when the client does not ask for more.
const PING: Duration = Duration::from_secs(90);

/// See the module.
pub struct EnvdProcess {
    shared: Arc<Shared>,
}

impl EnvdProcess {
    /// The service of this agent.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The newest process that fits, running or not.
    fn find(&self, selector: Option<Selector>) -> Result<Arc<Process>, ConnectError> {
        let live = self.shared.processes.live();
        let (found, what) = match selector {
            Some(Selector::Pid(pid)) => (live.iter().rfind(|process| number(process) == pid), format!("pid {pid}")),
            Some(Selector::Tag(tag)) => (live.iter().rfind(|process| process.facts().tag == tag), format!("tag {tag}")),
            None => return Err(ConnectError::invalid_argument("no process was selected")),
        };
        found.cloned().ok_or_else(|| ConnectError::not_found(format!("process with {what} not found")))
    }

    fn find_running(&self, selector: Option<Selector>) -> Result<Arc<Process>, ConnectError> {
        let process = self.find(selector)?;
        if process.is_running() {
            return Ok(process);
        }
        Err(ConnectError::not_found(format!("process with pid {} not found", number(&process))))
    }

    fn events(
        &self,
        process: Arc<Process>,
        since: Option<u64>,
        context: &RequestContext,
    ) -> ServiceStream<ProcessEvent> {
        let first = event(StartEvent { pid: number(&process), ..Default::default() });
        let mut reader = self.shared.processes.reader(&Entry::Live(process), since);
        if since == Some(0) {
            // Who starts it reads from the first byte on.
            reader = reader.holding();
        }
        let updates = follow(reader, Some(ping_interval(context).unwrap_or(PING)));
        Box::pin(stream::iter([Ok(first)]).chain(updates.flat_map(|update| stream::iter(events(update)))))
    }
}

impl Service for EnvdProcess {
    async fn list(&self, _: RequestContext, _: ServiceRequest<'_, ListRequest>) -> ServiceResult<ListResponse> {
        let live = self.shared.processes.live();
        let processes = live.iter().filter(|process| process.is_running()).map(|process| describe(process)).collect();
        Response::ok(ListResponse { processes, ..Default::default() })
    }

    async fn connect(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, ConnectRequest>,
    ) -> ServiceResult<ServiceStream<ConnectResponse>> {
        let process = self.find(selected(request.to_owned_message().process.as_option()))?;
        let events = self.events(process, None, &context);
        let answer = |event: ProcessEvent| ConnectResponse { event: event.into(), ..Default::default() };
        Response::ok(Box::pin(events.map(move |event| event.map(answer))))
    }

    async fn start(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, StartRequest>,
    ) -> ServiceResult<ServiceStream<StartResponse>> {
        let request = asked(request.to_owned_message(), &context)?;
        let process = self.shared.processes.start(request).await.map_err(refused)?;
        let events = self.events(process, Some(0), &context);
        let answer = |event: ProcessEvent| StartResponse { event: event.into(), ..Default::default() };
        Response::ok(Box::pin(events.map(move |event| event.map(answer))))
    }

    async fn update(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, UpdateRequest>,
    ) -> ServiceResult<UpdateResponse> {
        let request = request.to_owned_message();
        let process = self.find_running(selected(request.process.as_option()))?;
        if let Some(size) = request.pty.as_option().map(size) {
            process.input.resize(size).map_err(|error| ConnectError::internal(error.to_string()))?;
        }
        Response::ok(UpdateResponse::default())
    }

    async fn stream_input(
        &self,
        _: RequestContext,
        mut requests: InboundStream<StreamInputRequest>,
    ) -> ServiceResult<StreamInputResponse> {
        let mut process = None;
        while let Some(message) = requests.next().await.transpose()? {
            match message.to_owned_message().event {
                Some(InputKind::Start(start)) => {
                    process = Some(self.find_running(selected(start.process.as_option()))?)
                }
                Some(InputKind::Data(data)) => {
                    let process = process.as_ref();
                    let process = process.ok_or_else(|| ConnectError::invalid_argument("data before the start"))?;
                    send(process, data.input.as_option()).await?;
                }
                Some(InputKind::Keepalive(_)) | None => {}
            }
        }
        Response::ok(StreamInputResponse::default())
    }

    async fn send_input(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, SendInputRequest>,
    ) -> ServiceResult<SendInputResponse> {
        let request = request.to_owned_message();
        let process = self.find_running(selected(request.process.as_option()))?;
        send(&process, request.input.as_option()).await?;
        Response::ok(SendInputResponse::default())
    }

    async fn send_signal(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, SendSignalRequest>,
    ) -> ServiceResult<SendSignalResponse> {
        let number = request.signal.to_i32();
        let signal = Signal::from_named_raw(number)
            .ok_or_else(|| ConnectError::invalid_argument(format!("{number} is not a signal")))?;
        let process = self.find_running(selected(request.to_owned_message().process.as_option()))?;
        // A kill leaves nothing of the process; other signals are for the program to handle.
        match signal {
            Signal::KILL => process.signal_tree(signal).await,
            _ => process.signal_leader(signal),
        };
        Response::ok(SendSignalResponse::default())
    }

    async fn close_stdin(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, CloseStdinRequest>,
    ) -> ServiceResult<CloseStdinResponse> {
        let process = self.find_running(selected(request.to_owned_message().process.as_option()))?;
        if process.input.is_terminal() {
            return Err(ConnectError::failed_precondition("cannot close the input of a PTY process"));
        }
        process.input.close();
        Response::ok(CloseStdinResponse::default())
    }
}

fn number(process: &Process) -> u32 {
    process.pid.as_raw_nonzero().get().unsigned_abs()
}

fn selected(selector: Option<&ProcessSelector>) -> Option<Selector> {
    selector.and_then(|selector| selector.selector.clone())
}

fn size(pty: &PTY) -> Size {
    Size::new(pty.size.cols, pty.size.rows)
}

fn describe(process: &Process) -> ProcessInfo {
    let facts = process.facts();
    let config = ProcessConfig {
        cmd: facts.argv.first().cloned().unwrap_or_default(),
        args: facts.argv.iter().skip(1).cloned().collect(),
        cwd: Some(facts.cwd.clone()),
        ..Default::default()
    };
    let tag = (!facts.tag.is_empty()).then(|| facts.tag.clone());
    ProcessInfo { config: config.into(), pid: number(process), tag, ..Default::default() }
}

fn asked(request: StartRequest, context: &RequestContext) -> Result<Request, ConnectError> {
    let config = request.process.as_option().cloned().unwrap_or_default();
    let attachment = match request.pty.as_option() {
        Some(pty) => Attachment::Terminal(size(pty)),
        // Clients older than the field expect a pipe.
        None if request.stdin.unwrap_or(true) => Attachment::InputAndOutput,
        None => Attachment::Output,
    };
    Ok(Request {
        argv: [config.cmd].into_iter().chain(config.args).collect(),
        env: config.envs.into_iter().collect(),
        cwd: config.cwd.unwrap_or_default(),
        user: user::named(context)?.unwrap_or_default(),
        attachment,
        // The client's patience is the process's lifetime.
        timeout: context.time_remaining(),
        detached: false,
        id: String::new(),
        tag: request.tag.unwrap_or_default(),
    })
}

fn refused(error: StartError) -> ConnectError {
    let StartError::Failed(Failure { reason, message }) = error else {
        return ConnectError::unavailable(error.to_string());
    };
    let code = match reason {
        FailReason::FAIL_REASON_UNKNOWN_USER => ErrorCode::Unauthenticated,
        FailReason::FAIL_REASON_NO_RESOURCES => ErrorCode::ResourceExhausted,
        FailReason::FAIL_REASON_INTERNAL => ErrorCode::Internal,
        _ => ErrorCode::InvalidArgument,
    };
    ConnectError::new(code, message)
}

async fn send(process: &Process, input: Option<&ProcessInput>) -> Result<(), ConnectError> {
    let data = match (input.and_then(|input| input.input.as_ref()), process.input.is_terminal()) {
        (Some(Bits::Pty(data)), true) | (Some(Bits::Stdin(data)), false) => data,
        (Some(Bits::Pty(_)), false) => return Err(ConnectError::internal("the process has no PTY")),
        (Some(Bits::Stdin(_)), true) => return Err(ConnectError::internal("the process has a PTY, and no stdin")),
        (None, _) => return Err(ConnectError::invalid_argument("no input was given")),
    };
    process.input.write(None, data).await.map_err(|error| ConnectError::internal(error.to_string()))
}

fn event(event: impl Into<Kind>) -> ProcessEvent {
    ProcessEvent { event: Some(event.into()), ..Default::default() }
}

fn events(update: Update) -> Vec<Result<ProcessEvent, ConnectError>> {
    match update {
        Update::KeepAlive => vec![Ok(event(KeepAlive::default()))],
        Update::Ended(ended) => vec![end(&ended)],
        Update::Chunk(chunk) => pieces(chunk.data).map(|piece| Ok(event(data(chunk.stream, piece)))).collect(),
    }
}

fn pieces(data: Bytes) -> impl Iterator<Item = Bytes> {
    (0..data.len()).step_by(LARGEST_PIECE).map(move |at| data.slice(at..data.len().min(at + LARGEST_PIECE)))
}

fn data(stream: Channel, data: Bytes) -> DataEvent {
    let output = match stream {
        Channel::STREAM_STDERR => Output::Stderr(data),
        Channel::STREAM_TERMINAL => Output::Pty(data),
        _ => Output::Stdout(data),
    };
    DataEvent { output: Some(output), ..Default::default() }
}

/// As Go's os/exec words it, which E2B's agent passes on.
fn end(ended: &Ended) -> Result<ProcessEvent, ConnectError> {
    if ended.reason == EndReason::END_REASON_TIMEOUT {
        return Err(ConnectError::deadline_exceeded("the process did not end in time and was killed"));
    }
    let exited = ended.signal == 0 && ended.reason == EndReason::END_REASON_EXITED;
    let status = if exited {
        format!("exit status {}", ended.exit_code)
    } else {
        format!("signal: {}", signal_name(ended.signal))
    };
    let failed = !exited || ended.exit_code != 0;
    Ok(event(EndEvent {
        exit_code: if exited { ended.exit_code } else { -1 },
        exited,
        error: failed.then(|| status.clone()),
        status,
        ..Default::default()
    }))
}

fn signal_name(number: i32) -> String {
    let known = [
        (1, "hangup"),
        (2, "interrupt"),
        (3, "quit"),
        (4, "illegal instruction"),
        (5, "trace/breakpoint trap"),
        (6, "aborted"),
        (7, "bus error"),
        (8, "floating point exception"),
        (9, "killed"),
        (10, "user defined signal 1"),
        (11, "segmentation fault"),
        (12, "user defined signal 2"),
        (13, "broken pipe"),
        (14, "alarm clock"),
        (15, "terminated"),
    ];
    known.iter().find(|(other, _)| *other == number).map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}
