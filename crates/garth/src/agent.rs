//! Talking to the agent of a project: the generated client over the daemon's byte proxy.

use connectrpc::client::{BoxFuture, ClientBody, ClientConfig, ClientTransport, ServerStream};
use connectrpc::{ConnectError, ErrorCode};
use garth_api::{Body, Client, ClientError, routes, stream_body};
use garth_protocol::agent::{EventView, ProcessesClient};
use garth_protocol::filesystem::{EntryInfo, FilesystemClient, StatRequest};
use garth_spec::ProjectName;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;

use crate::context::{self, Context, Patience, Repeat};
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// What happens when the project is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The daemon starts it first, within the same request.
    OnDemand,
    /// The same, but not again once a connection broke: what ended with a sandbox does not come back
    /// with the next.
    Once,
    /// The request fails.
    Never,
}

/// What comes back from Start and Attach.
pub type Events = ServerStream<Incoming, EventView<'static>>;

/// Carries the agent's requests through the daemon.
#[derive(Debug, Clone)]
pub struct Transport {
    client: Client,
    project: ProjectName,
}

impl ClientTransport for Transport {
    type ResponseBody = Incoming;
    type Error = ClientError;

    fn send(
        &self,
        request: Request<ClientBody>,
    ) -> BoxFuture<'static, std::result::Result<Response<Incoming>, ClientError>> {
        let Self { client, project } = self.clone();
        Box::pin(async move { client.agent(&project, request.map(stream_body)).await })
    }
}

/// The agent of one project.
pub struct Agent<'a> {
    pub project: &'a ProjectName,
    context: &'a Context,
    start: Start,
    files: FilesystemClient<Transport>,
    processes: ProcessesClient<Transport>,
}

impl<'a> Agent<'a> {
    /// Nothing is connected or started yet.
    pub fn of(context: &'a Context, project: &'a ProjectName, start: Start) -> Self {
        let transport = Transport { client: context.client.clone(), project: project.clone() };
        let config = ClientConfig::new(Uri::from_static("http://garth"));
        let config = match start {
            Start::OnDemand | Start::Once => config,
            Start::Never => config.with_default_header(routes::START_HEADER, "never"),
        };
        let files = FilesystemClient::new(transport.clone(), config.clone());
        Self { project, context, start, files, processes: ProcessesClient::new(transport, config) }
    }

    /// The same agent, with another answer to a stopped project.
    pub fn again(&self, start: Start) -> Self {
        Self::of(self.context, self.project, start)
    }

    /// Makes a daemon answer and the project run: for a request whose body can be sent only once.
    pub async fn wake(&self) -> Result<()> {
        self.stat("/").await.map(drop)
    }

    /// What is at a path; none when nothing is.
    pub async fn stat(&self, path: &str) -> Result<Option<EntryInfo>> {
        let request = StatRequest { path: path.to_owned(), ..StatRequest::default() };
        let mut patience = Patience::new(Repeat::Safe);
        loop {
            match self.files.stat(request.clone()).await {
                Ok(answer) => return Ok(answer.into_owned().entry.into_option()),
                Err(error) if error.code == ErrorCode::NotFound && error.source_arc().is_none() => return Ok(None),
                Err(error) => self.mend(&mut patience, &error).await?,
            }
        }
    }

    /// A request to one of the agent's plain HTTP paths, sent once.
    pub async fn plain(&self, mut request: Request<Body>) -> Result<Response<Incoming>> {
        if self.start == Start::Never {
            request.headers_mut().insert(routes::START_HEADER, HeaderValue::from_static("never"));
        }
        self.context.client.agent(self.project, request).await.map_err(|error| context::failure(&error))
    }

    /// Asks the agent, starting a daemon when none answers. Every call of ours may be sent twice:
    /// it names a process by an id of its own, or a position in its input.
    pub async fn ask<A>(
        &self,
        ask: impl AsyncFn(&ProcessesClient<Transport>) -> std::result::Result<A, ConnectError>,
    ) -> Result<A> {
        let mut patience = Patience::new(Repeat::Safe);
        let later = (self.start == Start::Once).then(|| self.again(Start::Never));
        loop {
            let agent = later.as_ref().filter(|_| patience.broke()).unwrap_or(self);
            match ask(&agent.processes).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.mend(&mut patience, &error).await?,
            }
        }
    }

    async fn mend(&self, patience: &mut Patience, error: &ConnectError) -> Result<()> {
        let source = error.source_arc();
        match source.as_deref().and_then(|source| source.downcast_ref::<ClientError>()) {
            Some(error) => self.context.mend(patience, error).await,
            // An answer that was cut off has this code and no source.
            None if error.code == ErrorCode::Internal && patience.again() => Ok(()),
            None => Err(refused(error)),
        }
    }
}

/// What the agent itself says no to.
pub fn refused(error: &ConnectError) -> Failure {
    let (exit, code) = match error.code {
        ErrorCode::NotFound => (Exit::NotFound, "not_found"),
        ErrorCode::AlreadyExists => (Exit::Conflict, "already_exists"),
        ErrorCode::FailedPrecondition => (Exit::Conflict, "conflict"),
        ErrorCode::InvalidArgument | ErrorCode::OutOfRange => (Exit::Usage, "invalid_request"),
        ErrorCode::PermissionDenied => (Exit::Refused, "permission_denied"),
        ErrorCode::ResourceExhausted => (Exit::Limit, "resource_exhausted"),
        _ => (Exit::Failed, "agent"),
    };
    Failure::new(exit, code, error.message.clone().unwrap_or_else(|| error.code.as_str().to_owned()))
}
