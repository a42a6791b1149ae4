//! What every command works with: the daemon, and how to print.

use std::error::Error as _;
use std::path::Path;
use std::time::Duration;

use garth_api::{Client, ClientError, ErrorCode};
use tokio::time::{Instant, sleep};

use crate::daemon::Endpoint;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output;

/// How long a request is tried again while daemons come and go.
const PATIENCE: Duration = Duration::from_secs(60);

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What happens to the same request when a connection broke before the answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Asking twice is the same as asking once.
    Safe,
    /// It may have been carried out: only a request that never left is sent again.
    Unsafe,
}

/// The daemon of this command line, and how to print.
#[derive(Debug, Clone)]
pub struct Context {
    pub client: Client,
    pub format: Format,
    endpoint: Endpoint,
}

impl Context {
    pub fn new(endpoint: Endpoint, format: Format) -> Self {
        Self { client: endpoint.client(), format, endpoint }
    }

    /// Where the daemon keeps everything, when that is known here.
    pub fn data_dir(&self) -> Option<&Path> {
        match &self.endpoint {
            Endpoint::DataDir(data_dir) => Some(data_dir),
            Endpoint::Socket(_) => None,
        }
    }

    /// Asks the daemon, starting one when none answers.
    pub async fn ask<A>(
        &self,
        repeat: Repeat,
        ask: impl AsyncFn(&Client) -> std::result::Result<A, ClientError>,
    ) -> Result<A> {
        let mut patience = Patience::new(repeat);
        loop {
            match ask(&self.client).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.mend(&mut patience, &error).await?,
            }
        }
    }

    /// Makes the request worth sending again, or says why it is not.
    pub async fn mend(&self, patience: &mut Patience, error: &ClientError) -> Result<()> {
        if Instant::now() > patience.until {
            return Err(failure(error));
        }
        match error {
            ClientError::Unreachable { source, .. } => self.endpoint.revive(source).await,
            ClientError::Refused(refused) if refused.code == ErrorCode::ShuttingDown => {
                sleep(Duration::from_millis(20)).await;
                Ok(())
            }
            ClientError::Broken { .. } if patience.again() => Ok(()),
            error => Err(failure(error)),
        }
    }

    /// Prints an answer: as JSON, or as the text that `text` makes of it.
    pub fn print<A: serde::Serialize>(&self, answer: &A, text: impl FnOnce(&A) -> String) -> Result<()> {
        match self.format {
            Format::Json => output::json(answer),
            Format::Text => output::print(&text(answer)),
        }
    }
}

/// How long and how often one request is tried again.
#[derive(Debug)]
pub struct Patience {
    repeat: Repeat,
    breaks: u32,
    until: Instant,
}

impl Patience {
    pub fn new(repeat: Repeat) -> Self {
        Self { repeat, breaks: 0, until: Instant::now() + PATIENCE }
    }

    /// Whether an answer was cut off already.
    pub const fn broke(&self) -> bool {
        self.breaks > 0
    }

    /// Whether a request whose answer was cut off may be sent again; counts the times.
    pub fn again(&mut self) -> bool {
        self.breaks += 1;
        self.repeat == Repeat::Safe && self.breaks <= 8
    }
}

/// What a person reads of a request that failed for good.
pub fn failure(error: &ClientError) -> Failure {
    let because = |failure: Failure| error.source().map_or(failure.clone(), |source| failure.because(source));
    match error {
        ClientError::Refused(error) => error.clone().into(),
        ClientError::Unreachable { .. } => {
            because(Failure::new(Exit::Unreachable, "daemon_unreachable", error.to_string()))
        }
        ClientError::Broken { .. } => because(Failure::new(Exit::Unreachable, "connection_broken", error.to_string()))
            .hint("whether the request was carried out is not known: look with garth ls"),
        ClientError::NotOurs { .. } | ClientError::Request(_) => because(Failure::protocol(error.to_string())),
    }
}
