//! Who is at the other end of a connection: on the socket whom the kernel names (`SO_PEERCRED`, unix(7)), over the network
//! whose key is shown. And what each of them may do.

use axum::RequestExt as _;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use garth_api::{ErrorCode, Role, routes};
use garth_spec::ProjectName;
use http::Method;
use http::header::AUTHORIZATION;
use http::request::Parts;
use tokio::net::{TcpListener, UnixListener};

use crate::failure::Failure;
use crate::input::Name;
use crate::keys::Caller;
use crate::router::App;
use crate::tls::Encrypted;

/// Who connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The host's root.
    Root,
    /// Someone of the group that may connect, or nobody knows who.
    Other,
    /// Someone on the network.
    Network,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(user) if user.uid() == 0 => Self::Root,
            _ => Self::Other,
        }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(_: IncomingStream<'_, TcpListener>) -> Self {
        Self::Network
    }
}

impl Connected<IncomingStream<'_, Encrypted>> for Peer {
    fn connect_info(_: IncomingStream<'_, Encrypted>) -> Self {
        Self::Network
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let info = ConnectInfo::<Self>::from_request_parts(parts, state).await;
        Ok(info.map_or(Self::Other, |ConnectInfo(peer)| peer))
    }
}

impl Peer {
    /// An error unless it is the host's root: with a directory of the host come all the rights in it that a sandbox's
    /// root has, which members of the group do not have.
    pub(crate) fn check_root(self) -> Result<(), Failure> {
        match self {
            Self::Root => Ok(()),
            Self::Other | Self::Network => {
                Err(Failure::new(ErrorCode::Forbidden, "volumes are for the host's root alone"))
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        // The guard has put it there: a handler without it is a mistake of ours, and lets nobody in.
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Failure::new(ErrorCode::Unauthenticated, "nobody knows who asks"))
    }
}

/// Lets through who may do what is asked.
pub(crate) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Result<Response, Failure> {
    let peer: Peer = request.extract_parts().await?;
    let caller = match peer {
        Peer::Root | Peer::Other => Caller::anyone(),
        Peer::Network => authenticate(&app, &mut request).await?,
    };
    let path = request.uri().path();
    let looks = request.method() == Method::GET && !path.contains("/agent/") && !path.ends_with("/hold");
    caller.check_role(match (path, looks) {
        (path, _) if path.starts_with(routes::KEYS) => Role::Admin,
        (path, true) if path.starts_with(routes::PROJECTS) || path == routes::VERSION => Role::Viewer,
        (path, false) if path.starts_with(routes::PROJECTS) => Role::User,
        (_, true) => Role::User,
        (_, false) => Role::Admin,
    })?;
    if path.starts_with(routes::PROJECTS)
        // No name: it is about no project, or one that the handler refuses.
        && let Ok(Name(name)) = request.extract_parts::<Name<ProjectName>>().await
    {
        caller.check_project(&name)?;
        if peer != Peer::Root && !looks && app.engine.has_volumes(&name) {
            peer.check_root()?;
        }
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The caller whose key is shown; the key goes no further.
async fn authenticate(app: &App, request: &mut Request) -> Result<Caller, Failure> {
    let shown = request.headers_mut().remove(AUTHORIZATION);
    let shown = shown.as_ref().and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    let caller = match shown {
        Some(shown) => app.keys.caller(shown.trim()).await?,
        None => None,
    };
    caller.ok_or_else(|| {
        let failure = Failure::new(ErrorCode::Unauthenticated, "no key that is known was shown");
        failure.hint("`garth key create` on the daemon's machine makes one: show it as `Authorization: Bearer KEY`")
    })
}
