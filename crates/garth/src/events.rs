//! What a process did, printed: its bytes as they are, or one line of JSON for each event.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use garth_protocol::agent::{EndReason, Ended, FailReason, Failed, Stream};
use serde_json::{Value, json};

use crate::context::Format;
use crate::exit::{Exit, signalled};
use crate::failure::{Failure, Result};
use crate::follow::{Follower, Happened, Piece};
use crate::output;
use crate::sink::Sink;

/// Prints the events of a process.
#[derive(Debug)]
pub struct Printer {
    format: Format,
    stdout: Sink,
    stderr: Sink,
    only: Option<Stream>,
}

impl Printer {
    pub fn new(format: Format) -> Self {
        Self { format, stdout: Sink::stdout(), stderr: Sink::stderr(), only: None }
    }

    /// Leaves out every stream but this one.
    #[must_use]
    pub fn only(mut self, stream: Option<Stream>) -> Self {
        self.only = stream;
        self
    }

    /// Prints everything until the process ends; the code to exit with.
    pub async fn show(&mut self, follower: &mut Follower<'_>) -> Result<u8> {
        self.show_kept(follower)
            .await?
            .ok_or_else(|| Failure::protocol("the process's output ended before the process"))
    }

    /// Prints everything that was asked for; the code to exit with if the process's end was part of it.
    pub async fn show_kept(&mut self, follower: &mut Follower<'_>) -> Result<Option<u8>> {
        while let Some(happened) = follower.next().await? {
            match happened {
                Happened::Started => self.event(&json!({ "event": "started", "id": follower.id() }))?,
                Happened::Output(piece) => self.piece(&piece).await?,
                Happened::Failed(failed) => return Err(not_started(failed)),
                Happened::Ended(ended) => {
                    self.event(&ended_json(&ended))?;
                    return exit_code(&ended).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn event(&self, event: &Value) -> Result<()> {
        match self.format {
            Format::Json => output::json_line(event),
            Format::Text => Ok(()),
        }
    }

    async fn piece(&mut self, piece: &Piece) -> Result<()> {
        if piece.lost > 0 && self.format == Format::Text {
            let note =
                format!("garth: {} bytes of output before offset {} are no longer kept\n", piece.lost, piece.offset);
            let _ = self.stderr.write(note.as_bytes()).await;
        }
        if self.only.is_some_and(|only| only != piece.stream) {
            return Ok(());
        }
        if self.format == Format::Json {
            return output::json_line(&piece_json(piece));
        }
        let sink = if piece.stream == Stream::Stderr { &mut self.stderr } else { &mut self.stdout };
        sink.write(&piece.data).await.map_err(|error| Failure::io("cannot pass the process's output on", &error))
    }
}

fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stderr => "stderr",
        Stream::Terminal => "terminal",
        Stream::Stdout | Stream::Unspecified => "stdout",
    }
}

fn piece_json(piece: &Piece) -> Value {
    let mut json = json!({ "event": "output", "stream": stream_name(piece.stream), "offset": piece.offset });
    match std::str::from_utf8(&piece.data) {
        Ok(text) => json["text"] = text.into(),
        Err(_) => json["base64"] = STANDARD.encode(&piece.data).into(),
    }
    if piece.lost > 0 {
        json["lost"] = piece.lost.into();
    }
    json
}

/// The end of a process as JSON.
pub fn ended_json(ended: &Ended) -> Value {
    let exited = ended.reason == EndReason::Exited;
    json!({
        "event": "ended",
        "reason": reason(ended),
        "exit_code": exited.then_some(ended.exit_code),
        "signal": (ended.signal != 0).then_some(ended.signal),
    })
}

/// Why a process ended, in one word.
pub fn reason(ended: &Ended) -> &'static str {
    match ended.reason.as_known().unwrap_or_default() {
        EndReason::Exited => "exited",
        EndReason::Signaled => "signaled",
        EndReason::Timeout => "timeout",
        EndReason::Lost | EndReason::Unspecified => "lost",
    }
}

/// The code to exit with for a process that ended; a failure when no one knows how.
pub fn exit_code(ended: &Ended) -> Result<u8> {
    match ended.reason.as_known().unwrap_or_default() {
        EndReason::Exited => Ok((ended.exit_code & 0xff) as u8),
        EndReason::Signaled => Ok(signalled((ended.signal & 0x7f) as u8)),
        EndReason::Timeout => Ok(Exit::Timeout.code()),
        EndReason::Lost | EndReason::Unspecified => Err(Failure::new(
            Exit::Ours,
            "process_lost",
            "the sandbox ended while the process ran; how the process would have ended is unknown",
        )),
    }
}

/// Why a program did not start.
pub fn not_started(failed: Failed) -> Failure {
    let reason = failed.reason.as_known().unwrap_or_default();
    let (code, exit) = match reason {
        FailReason::NotFound => ("program_not_found", Exit::NoSuchProgram),
        FailReason::Permission => ("program_not_permitted", Exit::NotExecutable),
        FailReason::IsDirectory => ("program_is_directory", Exit::NotExecutable),
        FailReason::NotExecutable => ("program_not_executable", Exit::NotExecutable),
        FailReason::TooLong => ("arguments_too_long", Exit::NotExecutable),
        FailReason::BadCwd => ("bad_working_directory", Exit::Ours),
        FailReason::UnknownUser => ("unknown_user", Exit::Ours),
        FailReason::NoResources => ("no_resources", Exit::Ours),
        FailReason::Invalid => ("invalid_request", Exit::Ours),
        FailReason::Internal | FailReason::Unspecified => ("start_failed", Exit::Ours),
    };
    Failure::new(exit, code, failed.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(reason: EndReason, exit_code: i32, signal: i32) -> Ended {
        Ended { reason: reason.into(), exit_code, signal, ..Ended::default() }
    }

    #[test]
    fn every_end_has_a_code() {
        let code = |ended| exit_code(&ended).map_err(|failure| failure.exit);
        assert_eq!(code(ended(EndReason::Exited, 7, 0)), Ok(7));
        assert_eq!(code(ended(EndReason::Signaled, 0, 15)), Ok(143));
        assert_eq!(code(ended(EndReason::Timeout, 0, 9)), Ok(124));
        assert_eq!(code(ended(EndReason::Lost, 0, 0)), Err(Exit::Ours));
    }

    #[test]
    fn bytes_that_are_no_text_are_base64() {
        let piece = |data: &[u8]| Piece { stream: Stream::Stderr, offset: 3, data: data.to_vec().into(), lost: 0 };
        assert_eq!(piece_json(&piece(b"hi"))["text"], "hi");
        assert_eq!(piece_json(&piece(b"\xff"))["base64"], "/w==");
        assert_eq!(piece_json(&piece(b""))["stream"], "stderr");
    }

    #[test]
    fn a_program_that_is_missing_is_127() {
        let failed = Failed { reason: FailReason::NotFound.into(), message: "no".into(), ..Failed::default() };
        assert_eq!(not_started(failed).exit, Exit::NoSuchProgram);
    }
}
