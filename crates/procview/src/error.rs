use std::io;

/// Why a server cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel gave no request, and not because none waits.
    #[error("read a request from the fuse device")]
    Request(#[source] io::Error),
    /// The kernel did not take an answer, and not because the asker has gone.
    #[error("write an answer to the fuse device")]
    Answer(#[source] io::Error),
    /// The kernel was asked to deliver requests again and failed, other than by not knowing how.
    #[error("ask the kernel for the requests of an earlier server")]
    Resend(#[source] io::Error),
}
