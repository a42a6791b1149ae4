//! `garth.agent.v1.Processes`.

use std::sync::Arc;
use std::time::Duration;

use connectrpc::{
    ConnectError, ErrorCode, InboundStream, RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream,
};
use futures::{Stream, StreamExt};
use garth_protocol::agent::{
    AttachRequest, CloseInputRequest, CloseInputResponse, Event, GetRequest, GetResponse, InputRequest, InputResponse,
    KeepAlive, ListRequest, ListResponse, Output, Processes, ResizeRequest, ResizeResponse, SendInputRequest,
    SendInputResponse, SignalRequest, SignalResponse, SignalScope, StartRequest, Started, WaitRequest, WaitResponse,
    oneof,
};
use rustix::process::Signal;

use crate::Shared;
use crate::process::{Attachment, Chunk, Entry, InputError, Process, Request, Size, StartError};
use crate::rpc::follow::{Update, follow, ping_interval, replay};

/// See the module.
pub struct ProcessesService {
    shared: Arc<Shared>,
}

impl ProcessesService {
    /// The service of this agent.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn find(&self, id: &str) -> Result<Entry, ConnectError> {
        self.shared.processes.find(id).await.ok_or_else(|| unknown(id))
    }

    fn find_live(&self, id: &str) -> Result<Arc<Process>, ConnectError> {
        self.shared.processes.find_live(id).ok_or_else(|| unknown(id))
    }
}

fn unknown(id: &str) -> ConnectError {
    ConnectError::not_found(format!("no process {id:?}"))
}

impl Processes for ProcessesService {
    async fn start(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, StartRequest>,
    ) -> ServiceResult<ServiceStream<Event>> {
        let request = asked(request.to_owned_message());
        let detached = request.detached;
        let process = match self.shared.processes.start(request).await {
            Ok(process) => process,
            Err(StartError::Failed(failure)) => return Response::ok(once(event(failure.message()))),
            Err(error) => return Err(refused(&error)),
        };
        let first = started(&process.id, process.pid.as_raw_nonzero().get().unsigned_abs());
        if detached {
            return Response::ok(once(first));
        }
        let reader = self.shared.processes.reader(&Entry::Live(process), Some(0)).holding();
        Response::ok(stream(first, follow(reader, ping_interval(&context))))
    }

    async fn attach(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, AttachRequest>,
    ) -> ServiceResult<ServiceStream<Event>> {
        let entry = self.find(request.id).await?;
        let reader = self.shared.processes.reader(&entry, request.since_offset);
        let first = started(request.id, entry.describe().pid);
        Response::ok(match request.follow {
            true => stream(first, follow(reader, ping_interval(&context))),
            false => stream(first, replay(reader)),
        })
    }

    async fn wait(&self, _: RequestContext, request: ServiceRequest<'_, WaitRequest>) -> ServiceResult<WaitResponse> {
        let entry = self.find(request.id).await?;
        let ended = entry.output().wait().await;
        Response::ok(WaitResponse { ended: ended.into(), ..Default::default() })
    }

    async fn get(&self, _: RequestContext, request: ServiceRequest<'_, GetRequest>) -> ServiceResult<GetResponse> {
        let process = self.find(request.id).await?.describe();
        Response::ok(GetResponse { process: process.into(), ..Default::default() })
    }

    async fn list(&self, _: RequestContext, request: ServiceRequest<'_, ListRequest>) -> ServiceResult<ListResponse> {
        let processes = if request.running_only {
            let live = self.shared.processes.live();
            live.iter().filter(|process| !process.is_gone()).map(|process| process.describe()).collect()
        } else {
            self.shared.processes.list().await.iter().map(Entry::describe).collect()
        };
        Response::ok(ListResponse { processes, ..Default::default() })
    }

    async fn signal(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, SignalRequest>,
    ) -> ServiceResult<SignalResponse> {
        let number = request.signal;
        let signal = Signal::from_named_raw(number)
            .ok_or_else(|| ConnectError::invalid_argument(format!("{number} is not a signal")))?;
        let tree = request.scope == SignalScope::SIGNAL_SCOPE_TREE;
        let signaled = match self.find(request.id).await? {
            Entry::Live(process) if tree => process.signal_tree(signal).await,
            Entry::Live(process) => process.signal_leader(signal),
            Entry::Archived(_) => 0,
        };
        Response::ok(SignalResponse { signaled, ..Default::default() })
    }

    async fn input(
        &self,
        _: RequestContext,
        mut requests: InboundStream<InputRequest>,
    ) -> ServiceResult<InputResponse> {
        use oneof::input_request::Event;
        let begin = requests.next().await.transpose()?.map(|message| message.to_owned_message().event);
        let Some(Some(Event::Start(start))) = begin else {
            return Err(ConnectError::invalid_argument("the first message is not a start"));
        };
        let process = self.find_live(&start.id)?;
        let mut offset = start.offset;
        while let Some(message) = requests.next().await.transpose()? {
            match message.to_owned_message().event {
                Some(Event::Data(data)) => {
                    process.input.write(offset, &data).await.map_err(|error| no_input(&error))?;
                    offset = offset.map(|offset| offset + data.len() as u64);
                }
                Some(Event::Start(_)) => return Err(ConnectError::invalid_argument("a second start")),
                Some(Event::Keepalive(_)) | None => {}
            }
        }
        if start.close {
            process.input.finish().await.map_err(|error| no_input(&error))?;
        }
        Response::ok(InputResponse { input_offset: process.input.taken(), ..Default::default() })
    }

    async fn send_input(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, SendInputRequest>,
    ) -> ServiceResult<SendInputResponse> {
        let process = self.find_live(request.id)?;
        process.input.write(request.offset, request.data).await.map_err(|error| no_input(&error))?;
        if request.close {
            process.input.finish().await.map_err(|error| no_input(&error))?;
        }
        Response::ok(SendInputResponse { input_offset: process.input.taken(), ..Default::default() })
    }

    async fn close_input(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, CloseInputRequest>,
    ) -> ServiceResult<CloseInputResponse> {
        match self.find_live(request.id)?.input.finish().await {
            Ok(()) | Err(InputError::Closed) => Response::ok(CloseInputResponse::default()),
            Err(error) => Err(no_input(&error)),
        }
    }

    async fn resize(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, ResizeRequest>,
    ) -> ServiceResult<ResizeResponse> {
        let process = self.find_live(request.id)?;
        let (cols, rows) = (request.terminal.cols, request.terminal.rows);
        process.input.resize(Size::new(cols, rows)).map_err(|error| no_input(&error))?;
        Response::ok(ResizeResponse::default())
    }
}

fn asked(request: StartRequest) -> Request {
    let attachment = match (request.terminal.as_option(), request.stdin) {
        (Some(size), _) => Attachment::Terminal(Size::new(size.cols, size.rows)),
        (None, true) => Attachment::InputAndOutput,
        (None, false) => Attachment::Output,
    };
    Request {
        argv: request.argv,
        env: request.env.into_iter().collect(),
        cwd: request.cwd,
        user: request.user,
        attachment,
        timeout: (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms)),
        detached: request.detached,
        id: request.id,
        tag: request.tag,
    }
}

fn refused(error: &StartError) -> ConnectError {
    let code = match error {
        StartError::Exists(_) => ErrorCode::AlreadyExists,
        StartError::BadId(_) => ErrorCode::InvalidArgument,
        StartError::ShuttingDown => ErrorCode::Unavailable,
        StartError::Failed(_) => ErrorCode::Internal,
    };
    ConnectError::new(code, error.to_string())
}

fn no_input(error: &InputError) -> ConnectError {
    let code = match error {
        InputError::Closed | InputError::NoTerminal => ErrorCode::FailedPrecondition,
        InputError::Gap { .. } => ErrorCode::OutOfRange,
        InputError::Write(_) => ErrorCode::Internal,
    };
    ConnectError::new(code, error.to_string())
}

fn event(event: impl Into<oneof::event::Event>) -> Event {
    Event { event: Some(event.into()), ..Default::default() }
}

fn started(id: &str, pid: u32) -> Event {
    event(Started { id: id.to_owned(), pid, ..Default::default() })
}

fn once(event: Event) -> ServiceStream<Event> {
    Box::pin(futures::stream::iter([Ok(event)]))
}

/// `first`, then what the process does.
fn stream(first: Event, updates: impl Stream<Item = Update> + Send + 'static) -> ServiceStream<Event> {
    let rest = updates.map(|update| {
        Ok(match update {
            Update::Chunk(chunk) => output(chunk),
            Update::KeepAlive => event(KeepAlive::default()),
            Update::Ended(ended) => event(ended),
        })
    });
    Box::pin(futures::stream::iter([Ok(first)]).chain(rest))
}

fn output(chunk: Chunk) -> Event {
    event(Output { stream: chunk.stream.into(), offset: chunk.offset, data: chunk.data, ..Default::default() })
}
