//! Passing a request on to an agent, though its sandbox may have been given up a moment before.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use garth_spec::{ProjectName, StartPolicy};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};

use super::Engine;
use super::error::Error;
use super::link::{Body, Unanswered};

/// How long the kubelet and the operator may take to notice that an agent is gone.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

impl Engine {
    /// Passes a request to the agent of a project's sandbox, which is started where the policy says so. Where no agent
    /// took the connection, the sandbox's end is waited for and the request sent once more: not a byte of it was read.
    ///
    /// # Errors
    /// When there is no sandbox, or its agent cannot be reached.
    pub async fn send(
        &self,
        name: &ProjectName,
        policy: StartPolicy,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let (head, body) = request.into_parts();
        let body = Kept(Arc::new(Mutex::new(Some(body))));
        let lend = || Request::from_parts(head.clone(), Lent { kept: body.clone(), taken: None }.boxed_unsync());
        let (project, link) = self.agent(name, policy).await?;
        let unreached = match link.send(lend()).await {
            Ok(answer) => return Ok(answer),
            Err(Unanswered::Unreached(error)) if body.lock().is_some() => error,
            Err(Unanswered::Unreached(error) | Unanswered::Broken(error)) => return Err(error),
        };
        if self.shared.projects.moved_on(&project, NOTICED_WITHIN).await.is_err() {
            return Err(unreached);
        }
        let (_, link) = self.agent(name, policy).await?;
        link.send(lend()).await.map_err(Unanswered::into_error)
    }
}

/// A body that is whole until someone reads of it.
#[derive(Debug, Clone)]
struct Kept(Arc<Mutex<Option<Body>>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Option<Body>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same for one reader, who takes it with the first byte.
struct Lent {
    kept: Kept,
    taken: Option<Body>,
}

impl hyper::body::Body for Lent {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.taken.is_none() {
            let whole = self.kept.lock().take();
            self.taken = whole;
        }
        match &mut self.taken {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(Some(Err("another reads this body".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.taken.as_ref().map_or_else(
            || self.kept.lock().as_ref().is_some_and(|body| body.is_end_stream()),
            |body| body.is_end_stream(),
        )
    }

    fn size_hint(&self) -> SizeHint {
        self.taken.as_ref().map_or_else(
            || self.kept.lock().as_ref().map_or_else(SizeHint::default, |body| body.size_hint()),
            |body| body.size_hint(),
        )
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper::body::Body as _;

    use super::*;

    fn whole(text: &'static str) -> Body {
        Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync()
    }

    #[tokio::test]
    async fn a_body_that_nobody_read_can_be_sent_again() {
        let kept = Kept(Arc::new(Mutex::new(Some(whole("text")))));
        let lend = || Lent { kept: kept.clone(), taken: None };
        let unread = lend();
        assert_eq!(unread.size_hint().exact(), Some(4));
        drop(unread);
        assert!(kept.lock().is_some());
        assert_eq!(lend().collect().await.expect("the first").to_bytes(), "text");
        assert!(kept.lock().is_none());
        assert!(lend().collect().await.is_err());
    }
}
