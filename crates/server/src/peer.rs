//! Who is at the other end of a connection, as the kernel says (`SO_PEERCRED`, unix(7)).

use axum::RequestExt as _;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::IncomingStream;
use garth_api::{ErrorCode, routes};
use garth_spec::ProjectName;
use http::Method;
use http::request::Parts;
use tokio::net::UnixListener;

use crate::failure::Failure;
use crate::input::Name;
use crate::router::App;

/// The user of the process that connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The host's root.
    Root,
    /// Someone of the group that may connect, or nobody knows who.
    Other,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        match stream.io().peer_cred() {
            Ok(user) if user.uid() == 0 => Self::Root,
            _ => Self::Other,
        }
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
            Self::Other => Err(Failure::new(ErrorCode::Forbidden, "volumes are for the host's root alone")),
        }
    }
}

/// Leaves projects with volumes to the host's root; others may look at them.
pub(crate) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Result<Response, Failure> {
    let peer: Peer = request.extract_parts().await?;
    let path = request.uri().path();
    let looks = request.method() == Method::GET && !path.contains("/agent/") && !path.ends_with("/hold");
    if peer == Peer::Root || looks || !path.starts_with(routes::PROJECTS) {
        return Ok(next.run(request).await);
    }
    // No name: it is about no project, or one that the handler refuses.
    if let Ok(Name(name)) = request.extract_parts::<Name<ProjectName>>().await
        && app.engine.has_volumes(&name)
    {
        peer.check_root()?;
    }
    Ok(next.run(request).await)
}
