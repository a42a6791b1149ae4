//! Frames with descriptors over a unix stream socket: four bytes of length, then JSON.
//!
//! A stream and not packets, because a frame holds the user's environment, which may be larger than a packet.
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No message of ours has more descriptors: a cgroup v1 host has some 13 hierarchies.
const MOST_FDS: usize = 24;
/// Far above any order; a length beyond it is not one of ours.
const LONGEST: usize = 16 << 20;

/// One end of a conversation.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    /// Two ends, both closed on exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Self(a), Self(b)))
    }

    /// Makes [`Channel::receive`] fail with `WouldBlock` when nothing comes for so long.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, Some(patience))?)
    }

    /// Sends one message with descriptors. The other end being gone is `BrokenPipe`, never a signal.
    pub(crate) fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut frame = vec![0; 4];
        serde_json::to_writer(&mut frame, message)?;
        let length = u32::try_from(frame.len() - 4).map_err(|_| io::ErrorKind::InvalidInput)?;
        frame[..4].copy_from_slice(&length.to_le_bytes());
        let mut sent = self.send_some(&frame, fds)?;
        while sent < frame.len() {
            sent += self.send_some(&frame[sent..], &[])?;
        }
        Ok(())
    }

    fn send_some(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        retry(|| sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))
    }

    /// Waits for one message. `None` when the other end is closed.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut fds = Vec::new();
        let mut length = [0; 4];
        match self.receive_some(&mut length, &mut fds)? {
            0 => return Ok(None),
            got => self.fill(&mut length[got..])?,
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; length];
        self.fill(&mut frame)?;
        Ok(Some((serde_json::from_slice(&frame)?, fds)))
    }

    fn fill(&self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            // Descriptors come with the first byte only; any here are closed again.
            match self.receive_some(buffer, &mut Vec::new())? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => buffer = &mut buffer[got..],
            }
        }
        Ok(())
    }

    fn receive_some(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(buffer)];
        let got = retry(|| recvmsg(&self.0, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC))?.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        Ok(got)
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_larger_than_a_socket_buffer_arrive_whole() {
        let (a, b) = Channel::pair().expect("pair");
        let long = "x".repeat(3 << 20);
        let sender = std::thread::spawn({
            let long = long.clone();
            move || a.send(&long, &[a.as_fd()]).expect("send")
        });
        let (text, fds) = b.receive::<String>().expect("receive").expect("a message");
        sender.join().expect("sender");
        assert_eq!((text == long, fds.len()), (true, 1));
        drop(fds);
        assert!(b.receive::<String>().expect("end").is_none());
    }

    #[test]
    fn a_length_that_is_not_ours_is_an_error() {
        let (a, b) = Channel::pair().expect("pair");
        rustix::io::write(&a, &u32::MAX.to_le_bytes()).expect("write");
        assert!(b.receive::<String>().is_err());
    }
}
