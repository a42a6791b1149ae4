//! What a session's driver and its streams share: the mux behind a lock, and how the driver is woken.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use tokio::sync::Notify;

use crate::error::End;
use crate::mux::{Mux, Side};

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    state: Mutex<State>,
    over: Notify,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) mux: Mux,
    /// Nobody will open another stream.
    abandoned: bool,
    driver: Option<(Waker, Waits)>,
}

/// What the driver cannot go on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// All is written.
    ForOutput,
    /// The pipe is full; what streams write meanwhile goes out together.
    ForPipe,
}

impl Session {
    pub(crate) fn new(side: Side) -> Self {
        let state = State { mux: Mux::new(side), abandoned: false, driver: None };
        Self { state: Mutex::new(state), over: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside left at worst a stream that ends oddly.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the streams; the driver learns of what is to be written then.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Mux) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state.mux);
        let driver = state.driver_to_wake();
        drop(state);
        driver.into_iter().for_each(Waker::wake);
        result
    }

    /// No more streams will be opened.
    pub(crate) fn abandon(&self) {
        self.lock().abandoned = true;
        self.change(|_| {});
    }

    pub(crate) fn end(&self, end: End) {
        self.change(|mux| mux.end(end));
        self.over.notify_waiters();
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> End {
        loop {
            let over = self.over.notified();
            if let Some(end) = self.lock().mux.ended() {
                return end;
            }
            over.await;
        }
    }
}

impl State {
    /// It was closed, or nobody holds anything of it.
    pub(crate) fn is_over(&self) -> bool {
        self.mux.ended().is_some() || self.abandoned && self.mux.is_unused()
    }

    pub(crate) fn wait(&mut self, cx: &Context<'_>, waits: Waits) {
        self.driver = Some((cx.waker().clone(), waits));
    }

    fn driver_to_wake(&mut self) -> Option<Waker> {
        let (_, waits) = self.driver.as_ref()?;
        if self.is_over() || *waits == Waits::ForOutput && self.mux.has_output() {
            self.driver.take().map(|(waker, _)| waker)
        } else {
            None
        }
    }
}
