//! The guest's end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use crate::VERSION;
use crate::driver::{Stop, drive};
use crate::error::End;
use crate::frame::{Hello, INBOX};
use crate::greeting::{answer, await_host};
use crate::mux::Side;
use crate::pipe::Pipe;
use crate::session::Session;
use crate::stream::Stream;

/// Takes the streams that hosts open, one host after the other: a new one ends what the one before left.
#[derive(Debug)]
pub struct Guest {
    arrivals: Arc<Arrivals>,
    task: JoinHandle<()>,
}

/// Streams that nobody took yet, of the present session.
#[derive(Debug, Default)]
struct Arrivals(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    streams: VecDeque<Stream>,
    end: Option<End>,
    taker: Option<Waker>,
}

impl Guest {
    /// Listens on a pipe, on a task that it spawns.
    pub fn new<D>(duplex: D) -> Self
    where
        D: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let arrivals = Arc::new(Arrivals::default());
        let task = tokio::spawn(listen(Pipe::new(duplex, INBOX), Arc::clone(&arrivals)));
        Self { arrivals, task }
    }

    /// The next stream of whatever host there is. An error is for ever: the pipe is at its end.
    pub async fn accept(&mut self) -> Result<Stream, End> {
        poll_fn(|cx| self.arrivals.poll_take(cx)).await
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen<D: AsyncRead + AsyncWrite + Unpin>(mut pipe: Pipe<D>, arrivals: Arc<Arrivals>) {
    let end = loop {
        if let Err(end) = await_host(&mut pipe).await {
            break end;
        }
        if let Err(end) = serve(&mut pipe, &arrivals).await {
            break end;
        }
    };
    arrivals.change(|waiting| waiting.end = Some(end));
}

/// Serves hosts until one has to be looked for again.
async fn serve<D: AsyncRead + AsyncWrite + Unpin>(pipe: &mut Pipe<D>, arrivals: &Arrivals) -> Result<(), End> {
    loop {
        let session = Arc::new(Session::new(Side::Guest));
        let opened = |id| {
            let stream = Stream::new(Arc::clone(&session), id);
            arrivals.change(|waiting| waiting.streams.push_back(stream));
        };
        let stop = drive(pipe, &session, opened).await;
        drop(arrivals.change(|waiting| std::mem::take(&mut waiting.streams)));
        match stop {
            Stop::Hello(hello) if answer(pipe, hello) => {}
            Stop::Hello(_) => return Ok(()),
            Stop::End(End::Violation(_)) => {
                // A hello that nobody asked for ends the host's session too, behind what was being written.
                Hello { version: VERSION, nonce: [0; 16] }.encode(&mut pipe.outgoing);
                return Ok(());
            }
            Stop::End(end) => return Err(end),
        }
    }
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut waiting = self.lock();
        let result = change(&mut waiting);
        let taker = waiting.taker.take();
        drop(waiting);
        taker.into_iter().for_each(Waker::wake);
        result
    }

    fn poll_take(&self, cx: &Context<'_>) -> Poll<Result<Stream, End>> {
        let mut waiting = self.lock();
        match (waiting.streams.pop_front(), waiting.end) {
            (Some(stream), _) => Poll::Ready(Ok(stream)),
            (None, Some(end)) => Poll::Ready(Err(end)),
            (None, None) => {
                waiting.taker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
