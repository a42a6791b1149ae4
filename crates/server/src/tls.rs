//! Encrypted connections for callers on the network.
//!
//! ```text
//! TCP --accept--> a task for each handshake (bounded in number and time) --channel--> the server
//! ```
//!
//! Certificates are renewed by replacing their files: each connection gets what is there when it comes. A replacement that
//! makes no sense changes nothing, and is said in the log.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; whoever comes then waits in the kernel's queue.
const HANDSHAKES: usize = 256;

/// Where a certificate and its key are, in PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, and after it those that lead to an authority that callers know.
    pub certificate: PathBuf,
    /// The certificate's private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of the kind.
    #[error("{} holds no {what}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The two do not belong together, or are of no use.
    #[error("the certificate and the key cannot be used together")]
    Pair(#[from] rustls::Error),
}

impl TlsFiles {
    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let no_certificate = |source| TlsError::File { path: self.certificate.clone(), what: "certificate", source };
        let no_key = |source| TlsError::File { path: self.key.clone(), what: "private key", source };
        let certificates = CertificateDer::pem_file_iter(&self.certificate).and_then(Iterator::collect);
        let certificates: Vec<_> = certificates.map_err(no_certificate)?;
        if certificates.is_empty() {
            return Err(no_certificate(rustls::pki_types::pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(no_key)?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_single_cert(certificates, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Changes whenever one of the files is replaced.
    fn stamp(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|path| std::fs::metadata(path).and_then(|found| found.modified()).ok())
    }
}

/// A certificate that is as new as its files.
#[derive(Debug)]
struct Current {
    files: TlsFiles,
    last: Mutex<([Option<SystemTime>; 2], Arc<ServerConfig>)>,
}

impl Current {
    fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let stamp = files.stamp();
        let config = files.load()?;
        Ok(Self { files, last: Mutex::new((stamp, config)) })
    }

    fn config(&self) -> Arc<ServerConfig> {
        let stamp = self.files.stamp();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != stamp {
            // Once for each replacement, whatever comes of it.
            last.0 = stamp;
            match self.files.load() {
                Ok(config) => last.1 = config,
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, source, "the certificate stays the one before");
                }
            }
        }
        Arc::clone(&last.1)
    }
}

/// A port whose connections are encrypted. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Encrypted {
    greeted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: io::Result<SocketAddr>,
    greeting: JoinHandle<()>,
}

impl Encrypted {
    pub(crate) fn new(listener: TcpListener, files: TlsFiles) -> Result<Self, TlsError> {
        let current = Current::new(files)?;
        let address = listener.local_addr();
        let (sender, greeted) = mpsc::channel(1);
        Ok(Self { greeted, address, greeting: tokio::spawn(greet(listener, current, sender)) })
    }
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        self.greeting.abort();
    }
}

async fn greet(mut listener: TcpListener, current: Current, greeted: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // Of axum: it waits when descriptors have run out, and comes back with a connection.
        let (stream, peer) = Listener::accept(&mut listener).await;
        let (acceptor, greeted) = (TlsAcceptor::from(current.config()), greeted.clone());
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(greeted.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "no handshake"),
                Err(_) => tracing::debug!(%peer, "no handshake in time"),
            }
        });
    }
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.greeted.recv().await {
            Some(greeted) => greeted,
            // Nobody comes any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address.as_ref().copied().map_err(|error| error.kind().into())
    }
}
