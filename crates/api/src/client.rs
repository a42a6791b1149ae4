use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use garth_spec::{ImageName, ProjectName};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{
    Changed, CreateKey, CreateProject, CreatedKey, Doctor, Error, ErrorBody, GuestFiles, Image, ImageFormat, ImageList,
    KeyList, Project, ProjectList, ProjectPatch, SetupEvent, SetupMicrovm, SetupProgress, StopRequest, Verification,
    Version, routes,
};

/// The body of a request: whole or streamed.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A body of these bytes.
pub fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is streamed as it comes.
pub fn stream_body<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// Why a request had no useful answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there.
    #[error("cannot reach the daemon at {place}")]
    Unreachable {
        /// Where.
        place: Place,
        /// What connect(2) said.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke at {path}")]
    Broken {
        /// The request's path.
        path: String,
        /// What HTTP said.
        #[source]
        source: hyper::Error,
    },
    /// The answer is not of this contract.
    #[error("the daemon's answer to {path} ({status}) is not one that this version knows")]
    NotOurs {
        /// The request's path.
        path: String,
        /// The answer's status.
        status: StatusCode,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The request cannot be put in HTTP (a header or path with forbidden bytes).
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] Error),
}

/// One HTTP/1.1 connection to the daemon.
pub type Connection = SendRequest<Body>;

/// Where a daemon listens.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// At a unix socket.
    Socket(PathBuf),
    /// On the network.
    Network {
        /// Host and port.
        authority: Authority,
        /// Whether it proves who it is, and encrypts (TLS, by an authority that this machine knows: `SSL_CERT_FILE`).
        encrypted: bool,
        /// What callers show.
        key: Option<String>,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Network { authority, encrypted: false, .. } => write!(f, "http://{authority}"),
            Self::Network { authority, encrypted: true, .. } => write!(f, "https://{authority}"),
        }
    }
}

/// Without the key.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How long the other end may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Talks to one daemon. Clones share their idle connections.
#[derive(Debug, Clone)]
pub struct Client {
    place: Arc<Place>,
    idle: Arc<Mutex<Vec<Connection>>>,
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

/// Keeps an ephemeral project alive until dropped.
#[derive(Debug)]
pub struct Hold(Incoming);

impl Hold {
    /// Waits until the daemon ends the hold: it went down, or the project was removed.
    pub async fn ended(&mut self) {
        while let Some(Ok(_)) = self.0.frame().await {}
    }
}

impl Client {
    /// A client of the daemon that listens, or will listen, on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::at(Place::Socket(socket.into()))
    }

    /// A client of the daemon that listens, or will listen, there.
    pub fn at(place: Place) -> Self {
        Self { place: Arc::new(place), idle: Arc::default(), tls: Arc::default() }
    }

    /// Where the daemon listens.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Which daemon answers.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get(routes::VERSION).await
    }

    /// Makes a project.
    pub async fn create(&self, project: &CreateProject) -> Result<Project, ClientError> {
        self.call(Method::POST, routes::PROJECTS, Some(project)).await
    }

    /// All projects.
    pub async fn projects(&self) -> Result<ProjectList, ClientError> {
        self.get(routes::PROJECTS).await
    }

    /// One project with its usage.
    pub async fn project(&self, name: &ProjectName) -> Result<Project, ClientError> {
        self.get(&routes::project(name)).await
    }

    /// Changes a project.
    pub async fn patch(&self, name: &ProjectName, patch: &ProjectPatch) -> Result<Changed, ClientError> {
        self.call(Method::PATCH, &routes::project(name), Some(patch)).await
    }

    /// Deletes a project and its disk, running or not.
    pub async fn remove(&self, name: &ProjectName) -> Result<(), ClientError> {
        self.send_checked(Method::DELETE, &routes::project(name), no_body()).await.map(drop)
    }

    /// Starts a project; done when its agent answers. A running one stays as it is.
    pub async fn start(&self, name: &ProjectName) -> Result<Project, ClientError> {
        self.call(Method::POST, &routes::start(name), None::<&()>).await
    }

    /// Pauses a running project; done when nothing in its sandbox runs.
    pub async fn pause(&self, name: &ProjectName) -> Result<Project, ClientError> {
        self.call(Method::POST, &routes::pause(name), None::<&()>).await
    }

    /// Has a paused project go on where it was. A running one does already.
    pub async fn resume(&self, name: &ProjectName) -> Result<Project, ClientError> {
        self.call(Method::POST, &routes::resume(name), None::<&()>).await
    }

    /// Stops a project; done when nothing of its sandbox is left.
    pub async fn stop(&self, name: &ProjectName, stop: &StopRequest) -> Result<Project, ClientError> {
        self.call(Method::POST, &routes::stop(name), Some(stop)).await
    }

    /// Stops a project, if it runs, and starts it.
    pub async fn restart(&self, name: &ProjectName, stop: &StopRequest) -> Result<Project, ClientError> {
        self.call(Method::POST, &routes::restart(name), Some(stop)).await
    }

    /// Checks the boundary of a project's sandbox; a stopped project is started.
    pub async fn verify(&self, name: &ProjectName) -> Result<Verification, ClientError> {
        self.call(Method::POST, &routes::verify(name), None::<&()>).await
    }

    /// Holds an ephemeral project until the answer is dropped.
    pub async fn hold(&self, name: &ProjectName) -> Result<Hold, ClientError> {
        let answer = self.send_checked(Method::GET, &routes::hold(name), no_body()).await?;
        Ok(Hold(answer.into_body()))
    }

    /// All images.
    pub async fn images(&self) -> Result<ImageList, ClientError> {
        self.get(routes::IMAGES).await
    }

    /// One image.
    pub async fn image(&self, name: &ImageName) -> Result<Image, ClientError> {
        self.get(&routes::image(name)).await
    }

    /// Makes an image of a tar stream.
    pub async fn import(&self, name: &ImageName, format: ImageFormat, tar: Body) -> Result<Image, ClientError> {
        // Neither a name nor a format holds a byte that a query would need escaped, but ':' is legal there.
        let path = format!("{}?name={name}&format={format}", routes::IMAGES);
        let answer = self.send_checked(Method::POST, &path, tar).await?;
        decode(&path, answer).await
    }

    /// Forgets an image; projects made from it stay.
    pub async fn remove_image(&self, name: &ImageName) -> Result<(), ClientError> {
        self.send_checked(Method::DELETE, &routes::image(name), no_body()).await.map(drop)
    }

    /// Every key.
    pub async fn keys(&self) -> Result<KeyList, ClientError> {
        self.get(routes::KEYS).await
    }

    /// Makes a key.
    pub async fn create_key(&self, key: &CreateKey) -> Result<CreatedKey, ClientError> {
        self.call(Method::POST, routes::KEYS, Some(key)).await
    }

    /// Ends a key.
    pub async fn revoke_key(&self, id: &str) -> Result<(), ClientError> {
        self.send_checked(Method::DELETE, &routes::key(id), no_body()).await.map(drop)
    }

    /// What works here.
    pub async fn doctor(&self) -> Result<Doctor, ClientError> {
        self.get(routes::DOCTOR).await
    }

    /// Makes what guests start from; says how far it is.
    pub async fn setup_microvm(
        &self,
        ask: &SetupMicrovm,
        mut progress: impl FnMut(SetupProgress),
    ) -> Result<GuestFiles, ClientError> {
        let path = routes::SETUP_MICROVM;
        let not_ours = |source| ClientError::NotOurs { path: path.to_owned(), status: StatusCode::OK, source };
        let body = full_body(serde_json::to_vec(ask).map_err(not_ours)?);
        let mut answer = self.send_checked(Method::POST, path, body).await?.into_body();
        let mut text = Vec::new();
        while let Some(frame) = answer.frame().await {
            let frame = frame.map_err(|source| ClientError::Broken { path: path.to_owned(), source })?;
            text.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                match serde_json::from_slice(&line).map_err(not_ours)? {
                    SetupEvent::Progress(how_far) => progress(how_far),
                    SetupEvent::Done(files) => return Ok(files),
                    SetupEvent::Failed(error) => return Err(ClientError::Refused(error)),
                }
            }
        }
        // An answer that ends before its last line is one that was cut off.
        serde_json::from_slice(&text).map_err(not_ours)
    }

    /// Sends a request to the agent of a project. The request's path is the agent's (`/process.Process/Start`).
    ///
    /// An answer of the daemon's own (the project is unknown, cannot start, …) comes back as
    /// [`ClientError::Refused`]; whatever the agent answers comes back as it is, errors too.
    pub async fn agent(&self, name: &ProjectName, request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = Uri::try_from(routes::agent(name, path)).map_err(http::Error::from)?;
        let path = head.uri.path().to_owned();
        let answer = self.send(Request::from_parts(head, body)).await?;
        if answer.headers().contains_key(routes::ERROR_HEADER) { Err(refused(&path, answer).await) } else { Ok(answer) }
    }

    /// Sends any request on an idle or new connection; the answer may be an error of the daemon's.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, ClientError> {
        let host = match &*self.place {
            Place::Socket(_) => HeaderValue::from_static("garth"),
            // Whatever stands before the daemon may choose by it.
            Place::Network { authority, .. } => HeaderValue::from_str(authority.as_str()).map_err(http::Error::from)?,
        };
        request.headers_mut().insert(HOST, host);
        if let Place::Network { key: Some(key), .. } = &*self.place {
            let mut shown = HeaderValue::from_str(&format!("Bearer {key}")).map_err(http::Error::from)?;
            shown.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, shown);
        }
        let path = request.uri().path().to_owned();
        while let Some(mut connection) = self.take_idle() {
            match connection.try_send_request(request).await {
                Ok(answer) => return Ok(self.keep(connection, answer)),
                // The connection went away before the request left: another may do.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(ClientError::Broken { path, source: error.into_error() }),
                },
            }
        }
        let mut connection = self.connect().await?;
        let answer = connection.send_request(request).await.map_err(|source| ClientError::Broken { path, source })?;
        Ok(self.keep(connection, answer))
    }

    /// A connection of its own, driven by a task on the current tokio runtime.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        let unreachable = |source| ClientError::Unreachable { place: (*self.place).clone(), source };
        match &*self.place {
            Place::Socket(path) => begin(UnixStream::connect(path).await.map_err(unreachable)?).await,
            Place::Network { authority, encrypted, .. } => {
                let port = authority.port_u16().unwrap_or(if *encrypted { 443 } else { 80 });
                let host = authority.host();
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let stream = TcpStream::connect((bare, port)).await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                if !encrypted {
                    return begin(stream).await;
                }
                begin(self.encrypt(bare, stream).await.map_err(unreachable)?).await
            }
        }
    }

    /// Has the other end prove that it is `host`.
    async fn encrypt(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let config = match self.tls.get() {
            Some(config) => config,
            None => {
                let config = tls()?;
                self.tls.get_or_init(|| config)
            }
        };
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no TLS within {} s", HANDSHAKE.as_secs()));
        tokio::time::timeout(HANDSHAKE, connecting).await.map_err(late)?
    }

    fn keep(&self, connection: Connection, answer: Response<Incoming>) -> Response<Incoming> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        answer
    }

    /// A connection whose last answer has been read to its end.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.is_closed());
        let ready = idle.iter().position(SendRequest::is_ready)?;
        Some(idle.swap_remove(ready))
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        question: Option<&Q>,
    ) -> Result<A, ClientError> {
        let body = match question {
            Some(question) => full_body(serde_json::to_vec(question).map_err(|source| ClientError::NotOurs {
                path: path.to_owned(),
                status: StatusCode::OK,
                source,
            })?),
            None => no_body(),
        };
        decode(path, self.send_checked(method, path, body).await?).await
    }

    async fn send_checked(&self, method: Method, path: &str, body: Body) -> Result<Response<Incoming>, ClientError> {
        let json = !http_body::Body::is_end_stream(&body) && !path.starts_with("/v1/images");
        let mut request = Request::builder().method(method).uri(path);
        if json {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let answer = self.send(request.body(body)?).await?;
        if answer.status().is_success() { Ok(answer) } else { Err(refused(path, answer).await) }
    }
}

/// The authorities of this machine, or those of `SSL_CERT_FILE`.
fn tls() -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("no authorities are known here{why}")));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

async fn begin<S>(stream: S) -> Result<Connection, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |source| ClientError::Broken { path: "/".to_owned(), source };
    let (connection, driver) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Errors of the driver reach the request that meets them.
    tokio::spawn(driver);
    Ok(connection)
}

fn no_body() -> Body {
    full_body(Bytes::new())
}

async fn refused(path: &str, answer: Response<Incoming>) -> ClientError {
    match decode::<ErrorBody>(path, answer).await {
        Ok(body) => ClientError::Refused(body.error),
        Err(error) => error,
    }
}

async fn decode<A: DeserializeOwned>(path: &str, answer: Response<Incoming>) -> Result<A, ClientError> {
    let status = answer.status();
    let body = answer.into_body().collect().await;
    let body = body.map_err(|source| ClientError::Broken { path: path.to_owned(), source })?.to_bytes();
    serde_json::from_slice(&body).map_err(|source| ClientError::NotOurs { path: path.to_owned(), status, source })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::ErrorCode;

    /// Answers every request on every connection with the same bytes; counts connections.
    fn daemon(dir: &Path, answer: &'static str) -> (PathBuf, Arc<Mutex<usize>>) {
        let socket = dir.join("garth.sock");
        let listener = UnixListener::bind(&socket).expect("bind");
        let connections = Arc::new(Mutex::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                *count.lock().expect("count") += 1;
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        stream.write_all(answer.as_bytes()).await.expect("write");
                    }
                });
            }
        });
        (socket, connections)
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_code_and_hint() {
        let dir = tempfile::tempdir().expect("dir");
        let body = r#"{"error":{"code":"not_found","message":"no project web","hint":"garth ls"}}"#;
        let answer = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (socket, _) = daemon(dir.path(), answer.leak());
        let name = "web".parse().expect("name");
        let Err(ClientError::Refused(error)) = Client::new(socket).project(&name).await else { panic!("not refused") };
        assert_eq!(error.code, ErrorCode::NotFound);
        assert_eq!(error.hint.as_deref(), Some("garth ls"));
    }

    #[tokio::test]
    async fn one_connection_serves_request_after_request() {
        let dir = tempfile::tempdir().expect("dir");
        let body = r#"{"projects":[]}"#;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (socket, connections) = daemon(dir.path(), answer.leak());
        let client = Client::new(socket);
        for _ in 0..3 {
            assert_eq!(client.projects().await.expect("list").projects, []);
        }
        assert_eq!(*connections.lock().expect("count"), 1);
    }

    #[tokio::test]
    async fn a_missing_daemon_is_unreachable() {
        let error = Client::new("/nonexistent/garth.sock").version().await.expect_err("no daemon");
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    }
}
