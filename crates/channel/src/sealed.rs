//! A byte stream over a network where others listen and send: between two who know one key, and nobody else.
//!
//! It is the Noise protocol (revision 34, `NNpsk0`). Three messages prove to each side that the other knows the key, before
//! anything is said: the first two agree on keys for this connection alone, so that who learns the key later cannot read what
//! went by; the third shows that the first was not an old one, played again.
//!
//! Then come records: their length (2 bytes, big-endian), up to 16 KiB, a tag. A record that was changed, left
//! out, repeated or swapped is an error, and an empty one is the end, so that a connection that somebody cut is none.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use snow::{Builder, TransportState};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::error::SealError;
use crate::pipe::Pipe;

/// The most bytes in one record.
const RECORD: usize = 16 << 10;
/// How long the other side may take to prove that it knows the key.
pub const PROVEN_WITHIN: Duration = Duration::from_secs(10);

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
/// What both sides must speak: others fail to prove anything.
const PROLOGUE: &[u8] = b"garth agent 1";
const TAG: usize = 16;
const LENGTH: usize = 2;
/// A message of the handshake: a public key, and the tag of nothing.
const PROOF: usize = 32 + TAG;
const LARGEST: usize = LENGTH + RECORD + TAG;

/// What both sides know: 256 random bits.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// Of 64 hexadecimal digits; nothing of any other text.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut key = [0; 32];
        if digits.len() != 2 * key.len() {
            return None;
        }
        for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
        }
        Some(Self(key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Such a stream, over another. Shutting it down tells the other side that this was the end; dropping it does not.
pub struct Sealed<D> {
    pipe: Pipe<D>,
    noise: TransportState,
    /// What came, opened and not yet read.
    opened: Box<[u8]>,
    start: usize,
    end: usize,
    /// What slices are gathered in, for one record.
    gathered: Vec<u8>,
    /// The other side said that it sends no more.
    ended: bool,
    /// This one did.
    finished: bool,
}

/// Proves to whoever took the connection that this side knows the key.
///
/// # Errors
/// When the other side does not within [`PROVEN_WITHIN`], or the connection fails.
pub async fn connect<D: AsyncRead + AsyncWrite + Unpin>(mut duplex: D, key: &Key) -> Result<Sealed<D>, SealError> {
    within(async {
        let mut noise = builder(key).build_initiator()?;
        let mut message = [0; PROOF];
        noise.write_message(&[], &mut message)?;
        say(&mut duplex, &message).await?;
        hear(&mut duplex, &mut message).await?;
        noise.read_message(&message, &mut []).map_err(|_| SealError::Stranger)?;
        let mut noise = noise.into_transport_mode()?;
        noise.write_message(&[], &mut message[..TAG])?;
        say(&mut duplex, &message[..TAG]).await?;
        Ok(Sealed::new(duplex, noise))
    })
    .await
}

/// The same with who connected, who is told nothing but random bytes before it has proven it.
///
/// # Errors
/// As of [`connect`].
pub async fn accept<D: AsyncRead + AsyncWrite + Unpin>(mut duplex: D, key: &Key) -> Result<Sealed<D>, SealError> {
    within(async {
        let mut noise = builder(key).build_responder()?;
        let mut message = [0; PROOF];
        hear(&mut duplex, &mut message).await?;
        noise.read_message(&message, &mut []).map_err(|_| SealError::Stranger)?;
        noise.write_message(&[], &mut message)?;
        say(&mut duplex, &message).await?;
        let mut noise = noise.into_transport_mode()?;
        hear(&mut duplex, &mut message[..TAG]).await?;
        noise.read_message(&message[..TAG], &mut []).map_err(|_| SealError::Stranger)?;
        Ok(Sealed::new(duplex, noise))
    })
    .await
}

async fn within<T>(proof: impl Future<Output = Result<T, SealError>>) -> Result<T, SealError> {
    tokio::time::timeout(PROVEN_WITHIN, proof).await.unwrap_or(Err(SealError::Late(PROVEN_WITHIN)))
}

fn builder(key: &Key) -> Builder<'_> {
    let pattern = PATTERN.parse().expect("a pattern of the specification");
    let builder = Builder::new(pattern).psk(0, &key.0).and_then(|builder| builder.prologue(PROLOGUE));
    builder.expect("nothing is set twice")
}

async fn say(duplex: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> Result<(), SealError> {
    duplex.write_all(message).await?;
    Ok(duplex.flush().await?)
}

async fn hear(duplex: &mut (impl AsyncRead + Unpin), message: &mut [u8]) -> Result<(), SealError> {
    match duplex.read_exact(message).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(SealError::Stranger),
        read => Ok(read.map(drop)?),
    }
}

/// Without what was said.
impl<D: fmt::Debug> fmt::Debug for Sealed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealed").field(self.pipe.get_ref()).finish_non_exhaustive()
    }
}

impl<D> Sealed<D> {
    /// The stream below.
    pub fn get_ref(&self) -> &D {
        self.pipe.get_ref()
    }
}

impl<D: AsyncRead + AsyncWrite + Unpin> Sealed<D> {
    fn new(duplex: D, noise: TransportState) -> Self {
        Self {
            pipe: Pipe::new(duplex, 2 * LARGEST),
            noise,
            opened: vec![0; RECORD].into(),
            start: 0,
            end: 0,
            gathered: Vec::new(),
            ended: false,
            finished: false,
        }
    }

    /// Opens the next record, if all of it is there.
    fn open(&mut self) -> Result<bool, SealError> {
        let [high, low, rest @ ..] = self.pipe.unread() else { return Ok(false) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if !(TAG..=RECORD + TAG).contains(&length) {
            return Err(SealError::Changed);
        }
        let Some(record) = rest.get(..length) else { return Ok(false) };
        self.end = self.noise.read_message(record, &mut self.opened).map_err(|_| SealError::Changed)?;
        self.start = 0;
        self.ended = self.end == 0;
        self.pipe.take(LENGTH + length);
        Ok(true)
    }

    /// A record of this, behind what is to be sent.
    fn seal(&mut self, bytes: &[u8]) -> Result<(), SealError> {
        let outgoing = &mut self.pipe.outgoing;
        let start = outgoing.len();
        outgoing.resize(start + LENGTH + bytes.len() + TAG, 0);
        let length = self.noise.write_message(bytes, &mut outgoing[start + LENGTH..])?;
        let length = u16::try_from(length).expect("a record is below 64 KiB");
        outgoing[start..start + LENGTH].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Takes this for a record, once what was taken before is sent.
    fn poll_seal(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.pipe.poll_write_out(cx))?;
        let bytes = &bytes[..bytes.len().min(RECORD)];
        if !bytes.is_empty() {
            self.seal(bytes)?;
            // What does not go now goes with the next call.
            if let Poll::Ready(sent) = self.pipe.poll_write_out(cx) {
                sent?;
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

impl<D: AsyncRead + AsyncWrite + Unpin> AsyncRead for Sealed<D> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.start == this.end && !this.ended {
            if this.open()? {
                continue;
            }
            ready!(this.pipe.poll_more(cx))?;
        }
        let unread = &this.opened[this.start..this.end];
        let taken = unread.len().min(buffer.remaining());
        buffer.put_slice(&unread[..taken]);
        this.start += taken;
        Poll::Ready(Ok(()))
    }
}

impl<D: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Sealed<D> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut gathered = std::mem::take(&mut this.gathered);
        for slice in slices {
            let room = RECORD - gathered.len();
            gathered.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let taken = this.poll_seal(cx, &gathered);
        gathered.clear();
        this.gathered = gathered;
        taken
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Ok(ready!(self.get_mut().pipe.poll_send(cx))?).into()
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.finished {
            this.finished = true;
            this.seal(&[])?;
        }
        Ok(ready!(this.pipe.poll_finish(cx))?).into()
    }
}

#[cfg(test)]
mod tests;
