//! Whether anything goes on in a sandbox: requests of clients, and processes, whoever started them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::server::Answer;

/// How often a sandbox with processes is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Counts the requests that are under way.
#[derive(Debug)]
pub(crate) struct Requests(watch::Sender<usize>);

/// A request, until the last byte of its answer is on its way or its client has gone.
#[derive(Debug)]
pub(crate) struct UnderWay(watch::Sender<usize>);

impl Requests {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    pub(crate) fn begin(&self) -> UnderWay {
        self.0.send_modify(|count| *count += 1);
        UnderWay(self.0.clone())
    }

    /// Returns once nothing has gone on for as long as this.
    pub(crate) async fn none_for(&self, quiet: Duration, processes: impl Fn() -> bool) {
        let mut count = self.0.subscribe();
        let mut since = Instant::now();
        loop {
            if *count.borrow_and_update() > 0 {
                let _ = count.wait_for(|count| *count == 0).await;
                since = Instant::now();
            } else if processes() {
                sleep(LOOK_EVERY.min(quiet)).await;
                since = Instant::now();
            } else if since.elapsed() >= quiet {
                return;
            } else if timeout_at(since + quiet, count.changed()).await.is_ok() {
                since = Instant::now();
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// An answer that holds its request under way.
pub(crate) struct Held {
    answer: Answer,
    _request: Option<UnderWay>,
}

impl Held {
    pub(crate) fn new(answer: Answer, request: Option<UnderWay>) -> Self {
        Self { answer, _request: request }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Pin::new(&mut self.answer).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

/// Whether this PID namespace has any process but this one (proc(5): a directory for each).
pub(crate) fn others_run() -> bool {
    let own = std::process::id().to_string();
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit()) && name != own;
    std::fs::read_dir("/proc")
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_process)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const QUIET: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_sandbox_is_idle_when_nothing_has_gone_on_for_long_enough() {
        let requests = Requests::new();
        let begun = Instant::now();
        requests.none_for(QUIET, || false).await;
        assert_eq!(begun.elapsed(), QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_under_way_or_was_lately_puts_it_off() {
        let requests = Requests::new();
        let begun = Instant::now();
        let clients = async {
            let long = requests.begin();
            tokio::time::sleep(QUIET * 3).await;
            drop(long);
            tokio::time::sleep(QUIET / 2).await;
            drop(requests.begin());
        };
        tokio::join!(requests.none_for(QUIET, || false), clients);
        assert_eq!(begun.elapsed(), QUIET * 4 + QUIET / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn so_does_a_process_that_nobody_waits_for() {
        let (requests, runs) = (Requests::new(), AtomicBool::new(true));
        let begun = Instant::now();
        let process = async {
            tokio::time::sleep(QUIET * 10).await;
            runs.store(false, Ordering::Relaxed);
        };
        tokio::join!(requests.none_for(QUIET, || runs.load(Ordering::Relaxed)), process);
        assert!(begun.elapsed() >= QUIET * 11, "{:?}", begun.elapsed());
        assert!(begun.elapsed() <= QUIET * 11 + LOOK_EVERY, "{:?}", begun.elapsed());
    }
}
