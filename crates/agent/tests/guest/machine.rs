//! QEMU without KVM, and a client of the agent in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use connectrpc::ConnectError;
use connectrpc::client::{BoxFuture, ClientBody, ClientConfig, ClientTransport};
use garth_channel::Host;
use garth_protocol::agent::{ProcessesClient, SandboxClient};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::kernel::Kernel;

/// For a machine that is emulated, beside other tests.
pub const LONG: Duration = Duration::from_secs(300);

/// A machine, that is ended when dropped.
pub struct Machine {
    qemu: Child,
    directory: tempfile::TempDir,
}

impl Machine {
    pub fn start(kernel: &Kernel, directory: tempfile::TempDir) -> Self {
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("first"), kernel.first_files()).expect("first files");
        let drive =
            |name: &str, more: &str| format!("file={},format=raw,if=none,id={name}{more}", path(name).display());
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "384", "-smp", "1"])
            .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
            .args(["-serial", &format!("file:{}", path("console").display())])
            .args(["-device", "virtio-serial-pci"])
            .args(["-chardev", &format!("socket,id=agent,path={},server=on,wait=off", path("channel").display())])
            .args(["-chardev", &format!("socket,id=bare,path={},server=on,wait=off", path("bare").display())])
            .args(["-device", "virtserialport,chardev=bare,name=bare"])
            .args(["-device", "virtserialport,chardev=agent,name=garth.agent"])
            .args(["-drive", &drive("usr", ",readonly=on"), "-device", "virtio-blk-pci,drive=usr,serial=image"])
            .args(["-drive", &drive("root", ",discard=unmap"), "-device", "virtio-blk-pci,drive=root,serial=project"])
            .args(["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(path("first"))
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off clearcpuid=cx16"])
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu starts");
        Self { qemu, directory }
    }

    fn channel(&self) -> PathBuf {
        self.directory.path().join("channel")
    }

    /// A session with the agent, as soon as it is there.
    pub async fn connect(&mut self) -> Line {
        let begun = std::time::Instant::now();
        let pipe = loop {
            match UnixStream::connect(self.channel()).await {
                Ok(pipe) => break pipe,
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
            assert!(self.qemu.try_wait().expect("qemu").is_none(), "qemu ended");
            assert!(begun.elapsed() < LONG, "qemu does not listen");
        };
        match Host::connect(pipe, LONG).await {
            Ok(host) => Line(host),
            Err(error) => panic!("{error}\n{}", self.console()),
        }
    }

    /// Another port, with nothing on it.
    pub async fn bare(&self) -> UnixStream {
        UnixStream::connect(self.directory.path().join("bare")).await.expect("qemu listens")
    }

    /// What it has used of this host's processors: on a busy host that tells more than the time that went by.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.qemu.id())).expect("stat");
        let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
        // USER_HZ is 100 on every Linux (proc(5)).
        Duration::from_millis(ticks * 10)
    }

    pub fn console(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("console")).unwrap_or_default()
    }

    /// Waits until the machine has ended by itself.
    pub fn ended(mut self) -> tempfile::TempDir {
        assert!(self.qemu.wait().expect("qemu").success());
        std::mem::replace(&mut self.directory, tempfile::tempdir().expect("directory"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// A stream for each request.
#[derive(Clone)]
pub struct Line(pub Host);

impl Line {
    pub fn processes(&self) -> ProcessesClient<Self> {
        ProcessesClient::new(self.clone(), config())
    }

    pub fn sandbox(&self) -> SandboxClient<Self> {
        SandboxClient::new(self.clone(), config())
    }

    /// An HTTP connection on a new stream.
    pub async fn http<B>(&self) -> SendRequest<B>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let stream = self.0.open().expect("open");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("handshake");
        tokio::spawn(connection);
        sender
    }

    /// What comes back for a body; no status when the connection ended first.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Option<(StatusCode, Bytes)> {
        let request = Request::post(path).header("host", "guest").header("content-type", "application/octet-stream");
        let request = request.body(Full::new(body.into())).expect("request");
        let answer = self.http().await.send_request(request).await.ok()?;
        let status = answer.status();
        Some((status, answer.into_body().collect().await.expect("body").to_bytes()))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Bytes) {
        let request = Request::get(path).header("host", "guest").body(Full::<Bytes>::default()).expect("request");
        let answer = self.http().await.send_request(request).await.expect("answer");
        let status = answer.status();
        (status, answer.into_body().collect().await.expect("body").to_bytes())
    }
}

fn config() -> ClientConfig {
    ClientConfig::new(Uri::from_static("http://guest"))
}

impl ClientTransport for Line {
    type ResponseBody = Incoming;
    type Error = ConnectError;

    fn send(&self, request: Request<ClientBody>) -> BoxFuture<'static, Result<Response<Incoming>, ConnectError>> {
        let host = self.0.clone();
        Box::pin(async move {
            let unavailable = |error: &dyn std::error::Error| ConnectError::unavailable(error.to_string());
            let stream = host.open().map_err(|error| unavailable(&error))?;
            let (mut sender, connection) =
                handshake(TokioIo::new(stream)).await.map_err(|error| unavailable(&error))?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(|error| unavailable(&error))
        })
    }
}

/// A machine's directory with its disks.
pub fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in("/var/tmp").expect("directory");
    let path = |name: &str| directory.path().join(name);
    crate::disks::make(&path("root"), &path("usr"));
    directory
}

/// Whether this host has what a machine takes; says so when not.
pub fn is_possible(test: &str) -> Option<Kernel> {
    for program in ["qemu-system-x86_64", "mke2fs", "ldd", "xz"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
            .any(|dir| Path::new(&dir).join(program).exists());
        if !found {
            println!("SKIP {test}: {program} is not installed");
            return None;
        }
    }
    let kernel = crate::kernel::kernel();
    if kernel.is_none() {
        println!("SKIP {test}: no package linux-image-cloud-amd64 to fetch");
    }
    kernel
}
