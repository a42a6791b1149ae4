//! The guest's end of a virtio-serial port, for an event loop.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rustix::event::epoll;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::readiness::watch;

/// A port. It reads as ended while no host is at its other end, and goes on when one is: the port stays open, because
/// closing it throws away what a host has sent meanwhile (`drivers/char/virtio_console.c`, `port_fops_release`).
///
/// The event loop would take the hang-up of an absent host for one that stays, and never wait again. So the port is in an
/// epoll set of its own, edge-triggered, and the loop watches that.
#[derive(Debug, Clone)]
pub(super) struct Port(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    port: OwnedFd,
    events: AsyncFd<OwnedFd>,
    readable: AtomicBool,
    writable: AtomicBool,
}

impl Port {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let port = rustix::fs::open(path, flags, Mode::empty())?;
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wanted = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&events, &port, epoll::EventData::new_u64(0), wanted)?;
        let events = watch(events, Interest::READABLE)?;
        let (readable, writable) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self(Arc::new(Inner { port, events, readable, writable })))
    }
}

impl Inner {
    /// Waits until something happened at the port since it was last found wanting.
    fn poll_ready(&self, what: &AtomicBool, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !what.load(Ordering::Relaxed) {
            let mut event = ready!(self.events.poll_read_ready(cx))?;
            let mut found = [std::mem::MaybeUninit::uninit(); 1];
            let (found, _) = epoll::wait(self.events.get_ref(), &mut found, Some(&NOW))?;
            if found.is_empty() {
                event.clear_ready();
                continue;
            }
            self.readable.store(true, Ordering::Relaxed);
            self.writable.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

const NOW: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &self.0;
        loop {
            ready!(inner.poll_ready(&inner.readable, cx))?;
            match rustix::io::read(&inner.port, buffer.initialize_unfilled()) {
                Ok(0) => {
                    inner.readable.store(false, Ordering::Relaxed);
                    return Poll::Ready(Ok(()));
                }
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => inner.readable.store(false, Ordering::Relaxed),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &self.0;
        loop {
            ready!(inner.poll_ready(&inner.writable, cx))?;
            match rustix::io::write(&inner.port, bytes) {
                Err(Errno::AGAIN) => inner.writable.store(false, Ordering::Relaxed),
                Err(Errno::INTR) => {}
                result => return Poll::Ready(result.map_err(Into::into)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
