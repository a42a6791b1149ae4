//! Standard input on its way to a process: read by a thread, sent with positions, so that a piece
//! whose answer was lost can be sent again and is not taken twice.

use std::io::Read as _;
use std::thread;

use garth_protocol::agent::SendInputRequest;
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::failure::Result;

/// One read: as much as a pipe holds.
const READ: usize = 64 << 10;
/// The most that is sent at once.
const SEND: usize = 512 << 10;

/// What comes from standard input.
#[derive(Debug)]
pub struct Input(mpsc::Receiver<Vec<u8>>);

impl Input {
    /// Begins to read. The thread stays in its read when the program ends, and ends with it.
    pub fn open() -> Self {
        let (sender, receiver) = mpsc::channel(SEND / READ);
        thread::spawn(move || {
            let mut stdin = std::io::stdin().lock();
            let mut buffer = vec![0; READ];
            // An error (a terminal that hung up) ends the input as its end does.
            while let Ok(read @ 1..) = stdin.read(&mut buffer) {
                let Some(data) = buffer.get(..read) else { break };
                if sender.blocking_send(data.to_vec()).is_err() {
                    break;
                }
            }
        });
        Self(receiver)
    }

    /// Sends everything to a process and closes its input; returns early when it takes no more.
    ///
    /// `position` counts the bytes that the process's input had before.
    pub async fn send(&mut self, agent: &Agent<'_>, id: &str, mut position: u64) -> Result<()> {
        loop {
            let data = self.next().await;
            let request = SendInputRequest {
                id: id.to_owned(),
                offset: Some(position),
                close: data.is_empty(),
                data: data.into(),
                ..SendInputRequest::default()
            };
            let sent = request.data.len() as u64;
            let answer = agent.ask(async |agent| agent.send_input(request.clone()).await).await;
            // The process closed its input or ended: as a pipe without a reader, but no one is told.
            if answer.is_err() || sent == 0 {
                return answer.map(drop);
            }
            position += sent;
        }
    }

    /// All that is there, at least one byte; nothing at the end.
    async fn next(&mut self) -> Vec<u8> {
        let mut data = self.0.recv().await.unwrap_or_default();
        while data.len() + READ <= SEND {
            let Ok(more) = self.0.try_recv() else { break };
            data.extend_from_slice(&more);
        }
        data
    }
}
