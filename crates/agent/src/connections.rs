//! Where clients come from: a unix socket, the streams of a virtual machine's channel, or a Pod's network.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::task::{Context, Poll};

use garth_channel::sealed::{self, Key, Sealed};
use garth_channel::{SealError, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::guest::{Line, Place};

/// Where clients will come from, before there is an event loop.
#[derive(Debug)]
pub enum Connections {
    /// A socket.
    Socket(UnixListener),
    /// What leads out of a virtual machine.
    Channel(Place),
    /// Whoever reaches this address and knows the key.
    Network(TcpListener, Key),
}

/// The same with one.
#[derive(Debug)]
pub(crate) enum Listener {
    Socket(tokio::net::UnixListener),
    Channel(Line),
    Network(tokio::net::TcpListener, Key),
}

/// Who comes.
#[derive(Debug)]
pub(crate) enum Arrival {
    Client(Connection),
    Stranger(Stranger),
}

/// Who has yet to prove that it is a client.
#[derive(Debug)]
pub(crate) struct Stranger {
    stream: TcpStream,
    key: Key,
}

/// A client.
#[derive(Debug)]
pub(crate) enum Connection {
    Socket(UnixStream),
    Channel(Stream),
    Network(Box<Sealed<TcpStream>>),
}

impl Connections {
    /// Begins to listen.
    pub(crate) fn listen(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Socket(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Socket(tokio::net::UnixListener::from_std(listener)?)
            }
            Self::Channel(place) => Listener::Channel(Line::open(place)?),
            Self::Network(listener, key) => {
                listener.set_nonblocking(true)?;
                Listener::Network(tokio::net::TcpListener::from_std(listener)?, key)
            }
        })
    }
}

impl Listener {
    /// The next client.
    pub(crate) async fn accept(&mut self) -> io::Result<Arrival> {
        Ok(match self {
            Self::Socket(listener) => Arrival::Client(Connection::Socket(listener.accept().await?.0)),
            Self::Channel(line) => Arrival::Client(Connection::Channel(line.accept().await?)),
            Self::Network(listener, key) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Arrival::Stranger(Stranger { stream, key: key.clone() })
            }
        })
    }
}

impl Stranger {
    /// The connection, once the stranger has proven that it may have one.
    ///
    /// # Errors
    /// When it does not; it was told nothing.
    pub(crate) async fn prove(self) -> Result<Connection, SealError> {
        Ok(Connection::Network(Box::new(sealed::accept(self.stream, &self.key).await?)))
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Channel(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Network(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Channel(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Network(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Channel(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Network(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Socket(stream) => stream.is_write_vectored(),
            Self::Channel(stream) => stream.is_write_vectored(),
            Self::Network(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_flush(cx),
            Self::Channel(stream) => Pin::new(stream).poll_flush(cx),
            Self::Network(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Channel(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Network(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
