//! Following a process: its events in order, each byte once, whatever happens to the daemon.
//!
//! ```text
//! Start or Attach --> started, output@offset … ended
//!        ^                      | connection broke
//!        +-- Attach from the next offset, a daemon started if need be
//! ```

use bytes::{Buf as _, Bytes};
use connectrpc::{ConnectError, ErrorCode};
use garth_protocol::agent::__buffa::oneof::event::Event;
use garth_protocol::agent::{AttachRequest, EndReason, Ended, Failed, Output, StartRequest, Stream};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::agent::{Agent, Events, Start, refused};
use crate::failure::{Failure, Result};

/// How often a broken stream is taken up again without any progress in between.
const BREAKS: u32 = 8;

/// What a process did.
#[derive(Debug, PartialEq)]
pub enum Happened {
    Started,
    Output(Piece),
    Ended(Ended),
    Failed(Failed),
}

/// Output that was not seen before.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    pub stream: Stream,
    pub offset: u64,
    pub data: Bytes,
    /// So many bytes before it are no longer kept.
    pub lost: u64,
}

/// The events of one process.
pub struct Follower<'a> {
    /// Starts no sandbox: a process whose sandbox is gone does not come back with another.
    agent: Agent<'a>,
    events: Events,
    id: String,
    from: From,
    follow: bool,
    breaks: u32,
}

/// Where a broken stream is taken up again.
#[derive(Debug)]
enum From {
    /// Nothing came yet of a Start that was sent so often.
    Start { request: Box<StartRequest>, sent: u32 },
    /// The next byte has this offset.
    Offset(u64),
}

/// An id for a new process: chosen here, so that a Start whose answer was lost can be repeated.
pub fn new_id() -> Result<String> {
    let mut bits = [0; 4];
    getrandom(&mut bits, GetRandomFlags::empty())
        .map_err(|error| Failure::io("the kernel gives no random bytes", &error.into()))?;
    Ok(format!("{:08x}", u32::from_ne_bytes(bits)))
}

impl<'a> Follower<'a> {
    /// Starts a process; the request has an id. The project is started if need be.
    pub async fn start(agent: &Agent<'a>, request: StartRequest) -> Result<Self> {
        let mut sent = 0;
        let events = send_start(agent, &request, &mut sent).await?;
        let id = request.id.clone();
        let from = From::Start { request: Box::new(request), sent };
        Ok(Self { agent: agent.again(Start::Never), events, id, from, follow: true, breaks: 0 })
    }

    /// Follows a process from an offset on.
    pub async fn attach(agent: &Agent<'a>, id: &str, since: u64, follow: bool) -> Result<Self> {
        let request = attach(id, since, follow);
        let events = agent.ask(async |agent| agent.attach(request.clone()).await).await?;
        let from = From::Offset(since);
        Ok(Self { agent: agent.again(Start::Never), events, id: id.to_owned(), from, follow, breaks: 0 })
    }

    /// The process's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The next thing it did; none at the end of what was asked for.
    pub async fn next(&mut self) -> Result<Option<Happened>> {
        loop {
            match self.events.message().await {
                Ok(Some(message)) => {
                    if let Some(happened) = self.take(message.to_owned_message().event) {
                        return Ok(Some(happened));
                    }
                }
                Ok(None) => return Ok(None),
                Err(error) => match self.resume(&error).await {
                    Ok(()) => {}
                    Err(failure) if failure.code == "not_running" => return Ok(Some(Happened::Ended(lost()))),
                    Err(failure) => return Err(failure),
                },
            }
        }
    }

    async fn resume(&mut self, error: &ConnectError) -> Result<()> {
        // An answer that breaks off is `internal`; whatever else there is comes from the agent.
        let said_by_the_agent = error.code != ErrorCode::Internal;
        let since = match &mut self.from {
            From::Start { sent: 2.., .. } if said_by_the_agent && error.code == ErrorCode::AlreadyExists => 0,
            _ if said_by_the_agent => return Err(refused(error)),
            _ if self.breaks == BREAKS => {
                return Err(Failure::protocol("the process's output broke off again and again").because(error));
            }
            From::Start { request, sent } => {
                self.breaks += 1;
                self.events = send_start(&self.agent.again(Start::OnDemand), request, sent).await?;
                return Ok(());
            }
            From::Offset(since) => *since,
        };
        self.breaks += 1;
        self.from = From::Offset(since);
        let request = attach(&self.id, since, self.follow);
        self.events = self.agent.ask(async |agent| agent.attach(request.clone()).await).await?;
        Ok(())
    }

    fn take(&mut self, event: Option<Event>) -> Option<Happened> {
        match event? {
            Event::Started(_) => {
                let first = matches!(self.from, From::Start { .. });
                if first {
                    self.from = From::Offset(0);
                }
                first.then_some(Happened::Started)
            }
            Event::Output(output) => {
                self.breaks = 0;
                let next = match self.from {
                    From::Offset(next) => next,
                    From::Start { .. } => 0,
                };
                let piece = fresh(next, *output);
                self.from = From::Offset(piece.offset + piece.data.len() as u64);
                (!piece.data.is_empty()).then_some(Happened::Output(piece))
            }
            Event::Ended(ended) => Some(Happened::Ended(*ended)),
            Event::Failed(failed) => Some(Happened::Failed(*failed)),
            Event::Keepalive(_) => None,
        }
    }
}

async fn send_start(agent: &Agent<'_>, request: &StartRequest, sent: &mut u32) -> Result<Events> {
    let times = std::cell::Cell::new(*sent);
    let events = agent.ask(async |agent| {
        times.set(times.get() + 1);
        agent.start(request.clone()).await
    });
    let events = events.await;
    *sent = times.get();
    events
}

fn attach(id: &str, since: u64, follow: bool) -> AttachRequest {
    AttachRequest { id: id.to_owned(), since_offset: Some(since), follow, ..AttachRequest::default() }
}

/// The end of a process whose sandbox went away.
pub fn lost() -> Ended {
    Ended { reason: EndReason::Lost.into(), ..Ended::default() }
}

/// The part of a piece that begins at the next byte: after a break the agent may cut anew.
fn fresh(next: u64, output: Output) -> Piece {
    let stream = output.stream.as_known().unwrap_or_default();
    let seen = usize::try_from(next.saturating_sub(output.offset)).unwrap_or(usize::MAX).min(output.data.len());
    let mut data = output.data;
    data.advance(seen);
    Piece { stream, offset: output.offset.max(next), data, lost: output.offset.saturating_sub(next) }
}

#[cfg(test)]
mod tests;
