use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::Sockets;
use super::limits::Limits;
use super::question::{self, Code, LONGEST, Verdict};
use super::resolvers::Resolvers;

/// Questions under way, each with a socket: one sandbox's, and in all.
const QUESTIONS: (usize, usize) = (64, 256);

/// Open TCP connections, likewise.
const CONNECTIONS: (usize, usize) = (8, 64);

/// How long one resolver may take. Programs ask again after five seconds (resolv.conf(5)), so two
/// resolvers fit in before.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a TCP connection may be idle.
const IDLE: Duration = Duration::from_secs(10);

/// Larger than any UDP answer that resolvers send (RFC 9715 recommends at most 1,400 bytes).
const UDP_ANSWER: usize = 16 << 10;

/// Serves both sockets until the future is dropped. Must be called in a tokio runtime whose
/// threads are in the host's network namespace.
pub(crate) async fn serve(sockets: Sockets, resolvers: Resolvers) -> io::Result<()> {
    let udp = Arc::new(UdpSocket::from_std(sockets.udp)?);
    let tcp = TcpListener::from_std(sockets.tcp)?;
    let upstream =
        Upstream { resolvers: Arc::new(Mutex::new(resolvers)), limits: Limits::new(QUESTIONS.0, QUESTIONS.1) };
    tokio::join!(serve_udp(udp, upstream.clone()), serve_tcp(tcp, upstream));
    Ok(())
}

#[derive(Debug, Clone)]
struct Upstream {
    resolvers: Arc<Mutex<Resolvers>>,
    limits: Limits,
}

impl Upstream {
    fn now(&self) -> Vec<SocketAddr> {
        // Reading a list replaces it whole.
        self.resolvers.lock().unwrap_or_else(PoisonError::into_inner).now()
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, upstream: Upstream) {
    let mut buffer = [0; LONGEST + 1];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "cannot receive DNS questions");
                tokio::time::sleep(PATIENCE).await;
                continue;
            }
        };
        let message = &buffer[..length];
        match question::judge(message) {
            Verdict::Ignore => {}
            Verdict::Answer(code) => drop(socket.try_send_to(&question::failure(message, code), from)),
            Verdict::Forward => {
                // Over the limit nothing is said: the program asks again, when there is room.
                let Some(place) = upstream.limits.take(from.ip()) else { continue };
                let (socket, resolvers, asked) = (Arc::clone(&socket), upstream.now(), message.to_vec());
                tokio::spawn(async move {
                    let answer = first(&resolvers, &asked, ask_udp).await;
                    // A sandbox that has gone needs no answer.
                    drop(socket.send_to(&answer, from).await);
                    drop(place);
                });
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, upstream: Upstream) {
    let connections = Limits::new(CONNECTIONS.0, CONNECTIONS.1);
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: they come back when others end.
                tracing::warn!(%error, "cannot accept a DNS connection");
                tokio::time::sleep(PATIENCE).await;
                continue;
            }
        };
        let Some(place) = connections.take(from.ip()) else { continue };
        let upstream = upstream.clone();
        tokio::spawn(async move {
            // However the connection ends, there is nobody to tell.
            drop(converse(stream, from.ip(), &upstream).await);
            drop(place);
        });
    }
}

/// Answers the questions of one connection, in order.
async fn converse(mut stream: TcpStream, from: IpAddr, upstream: &Upstream) -> io::Result<()> {
    loop {
        let asked = timeout(IDLE, read(&mut stream, LONGEST)).await??;
        let answer = match question::judge(&asked) {
            Verdict::Ignore => return Ok(()),
            Verdict::Answer(code) => question::failure(&asked, code),
            Verdict::Forward => match upstream.limits.take(from) {
                Some(_place) => first(&upstream.now(), &asked, ask_tcp).await,
                None => question::failure(&asked, Code::ServerFailure),
            },
        };
        timeout(IDLE, write(&mut stream, &answer)).await??;
    }
}

/// The first answer that a resolver gives, or a failure.
async fn first<F>(resolvers: &[SocketAddr], asked: &[u8], ask: impl Fn(SocketAddr, Vec<u8>) -> F) -> Vec<u8>
where
    F: Future<Output = io::Result<Vec<u8>>>,
{
    for resolver in resolvers {
        if let Ok(Ok(answer)) = timeout(PATIENCE, ask(*resolver, asked.to_vec())).await {
            return answer;
        }
    }
    question::failure(asked, Code::ServerFailure)
}

/// From a new port each time: answers can then be forged only by who sees the question.
async fn ask_udp(resolver: SocketAddr, asked: Vec<u8>) -> io::Result<Vec<u8>> {
    let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(&asked).await?;
    let mut buffer = vec![0; UDP_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if question::answers(&buffer[..length], &asked) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, asked: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(resolver).await?;
    write(&mut stream, &asked).await?;
    let answer = read(&mut stream, usize::from(u16::MAX)).await?;
    match question::answers(&answer, &asked) {
        true => Ok(answer),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// One message with its length before it, RFC 1035 §4.2.2.
async fn read(stream: &mut TcpStream, longest: usize) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > longest {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
