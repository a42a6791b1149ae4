//! What can go wrong, by who can do something about it.

use std::io;
use std::time::Duration;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// This side dropped it.
    #[error("the channel was closed")]
    Closed,
    /// The other side of the pipe went away.
    #[error("the other side of the channel is gone")]
    Gone,
    /// The other side began again.
    #[error("the other side of the channel began a new session")]
    Replaced,
    /// Reading or writing the pipe failed.
    #[error("the channel failed: {0}")]
    Io(io::ErrorKind),
    /// The other side broke the protocol.
    #[error("the other side of the channel broke its protocol: {0}")]
    Violation(Violation),
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<End> for io::Error {
    fn from(end: End) -> Self {
        let kind = match end {
            End::Closed => io::ErrorKind::NotConnected,
            End::Gone => io::ErrorKind::ConnectionAborted,
            End::Replaced => io::ErrorKind::ConnectionReset,
            End::Io(kind) => kind,
            End::Violation(_) => io::ErrorKind::InvalidData,
        };
        Self::new(kind, end)
    }
}

/// What a peer did that none may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// No frame begins so, or a hello came that is none.
    #[error("unknown frame")]
    Unknown,
    /// Longer than a frame may be, or empty where it may not.
    #[error("a frame of a wrong length")]
    Length,
    /// A frame that was cut off.
    #[error("a frame without its end")]
    EndMark,
    /// A stream that never was.
    #[error("a frame for a stream that was never opened")]
    NoStream,
    /// A guest opened a stream, or a host one whose number is not new.
    #[error("a stream that may not be opened")]
    Open,
    /// More streams than [`crate::MOST_STREAMS`].
    #[error("too many streams")]
    TooManyStreams,
    /// More bytes than this side gave credit for.
    #[error("more data than there was credit for")]
    BeyondWindow,
    /// More credit than [`crate::WINDOW`].
    #[error("more credit than a window")]
    BeyondCredit,
    /// Data, or a second end, behind the end.
    #[error("data behind the end of a stream")]
    BehindEnd,
}

/// Why there is no session with the guest.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing in the guest answered.
    #[error("the guest did not answer within {0:?}")]
    NoAnswer(Duration),
    /// The guest talks, but answers not.
    #[error("the guest sent {0} bytes and none was an answer")]
    Flood(u64),
    /// The guest's agent is of another time.
    #[error("the guest speaks version {theirs} of the channel, this host version {ours}")]
    Version {
        /// The guest's.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The pipe ended.
    #[error(transparent)]
    Pipe(#[from] End),
    /// No random bytes for a nonce.
    #[error("the kernel gives no random bytes")]
    Random(#[source] getrandom::Error),
}

/// Why no stream could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The session is over.
    #[error(transparent)]
    Ended(#[from] End),
    /// As many are open as may be.
    #[error("{} streams are open, which is the most", crate::MOST_STREAMS)]
    TooManyStreams,
    /// The guest does not read what was sent.
    #[error("the guest does not read what was sent to it")]
    Stalled,
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Ended(end) => end.into(),
            OpenError::TooManyStreams | OpenError::Stalled => Self::new(io::ErrorKind::ResourceBusy, error),
        }
    }
}

/// Why there is no stream that others cannot read, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side proved nothing.
    #[error("the other side does not know the key, or speaks another version of the protocol")]
    Stranger,
    /// It was silent.
    #[error("the other side did not prove within {0:?} that it knows the key")]
    Late(Duration),
    /// Somebody between the two sides sent, changed or left out something.
    #[error("what came is not what the other side sent")]
    Changed,
    /// No random bytes for a key, or more records than one connection may have.
    #[error("nothing can be encrypted")]
    Cipher(#[from] snow::Error),
}

impl From<SealError> for io::Error {
    fn from(error: SealError) -> Self {
        let kind = match error {
            SealError::Io(cause) => return cause,
            SealError::Stranger => io::ErrorKind::PermissionDenied,
            SealError::Late(_) => io::ErrorKind::TimedOut,
            SealError::Changed => io::ErrorKind::InvalidData,
            SealError::Cipher(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
