//! The system calls that the filter holds back, and what becomes of each.
//!
//! Nothing is allowed here that the kernel would not refuse when it must: a caller can change its memory after it was
//! read, so "go on" never depends on what was found there.
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use garth_kernel::namespace::{self, Fork, Namespaces, SingleThreaded};
use garth_kernel::seccomp;
use garth_kernel::seccomp::notify::{self, Answer, Call, Listener};
use garth_procview::View;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::mounts::{self, Change, Virtual};
use crate::Policy;
use crate::channel::Channel;

/// Helpers at work at once; calls beyond wait for their turn.
const MOST_HELPERS: usize = 8;
/// Calls answered before the virtual files have their turn again.
const AT_ONCE: usize = 16;
/// PATH_MAX, and more than any file system type's name or mount options of proc.
const LONGEST: usize = 4096;

/// What a helper says of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// It is not about anything virtual.
    GoOn,
    /// Done.
    Done,
    /// Refused or failed, with this error number.
    Error(i32),
}

/// The filter's calls.
pub(super) struct Calls {
    listener: Listener,
    helpers: Vec<(Channel, u64)>,
    numbers: Numbers,
}

struct Numbers {
    mount: Option<u32>,
    umount: Option<u32>,
    fsopen: Option<u32>,
    sysinfo: Option<u32>,
    affinity: Option<u32>,
}

impl AsFd for Calls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Calls {
    pub(super) fn new(listener: Listener) -> Self {
        let numbers = Numbers {
            mount: seccomp::number("mount"),
            umount: seccomp::number("umount2"),
            fsopen: seccomp::number("fsopen"),
            sysinfo: seccomp::number("sysinfo"),
            affinity: seccomp::number("sched_getaffinity"),
        };
        Self { listener, helpers: Vec::new(), numbers }
    }

    /// What to wait for: the listener first, then the helpers.
    pub(super) fn watch<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let events = if self.helpers.len() < MOST_HELPERS { PollFlags::IN } else { PollFlags::empty() };
        fds.push(PollFd::new(&self.listener, events));
        fds.extend(self.helpers.iter().map(|(channel, _)| PollFd::new(channel, PollFlags::IN)));
    }

    /// Answers what can be answered now.
    pub(super) fn serve(&mut self, view: &mut View, policy: &Policy, single: &SingleThreaded) {
        self.hear_helpers();
        for _ in 0..AT_ONCE {
            if self.helpers.len() >= MOST_HELPERS || !is_readable(&self.listener) {
                return;
            }
            let Ok(Some(call)) = self.listener.receive() else { continue };
            match self.decide(&call, view) {
                Decision::Answer(answer) => self.answer(call.id, answer),
                Decision::Help(change) => self.help(&call, &change, policy, single),
            }
        }
    }

    fn answer(&self, call: u64, answer: Answer) {
        // An error that is not the caller's end would leave the caller waiting; the kernel knows no other.
        let _ = self.listener.answer(call, answer);
    }

    fn hear_helpers(&mut self) {
        let mut waiting = std::mem::take(&mut self.helpers);
        waiting.retain(|(channel, call)| {
            if !is_readable(channel) {
                return true;
            }
            let outcome = channel.receive::<Outcome>().ok().flatten().map(|(outcome, _)| outcome);
            self.answer(
                *call,
                match outcome {
                    Some(Outcome::GoOn) => Answer::Continue,
                    Some(Outcome::Done) => Answer::Value(0),
                    Some(Outcome::Error(errno)) => Answer::Error(Errno::from_raw_os_error(errno)),
                    // The helper died: what it was asked for did not happen, as far as anyone knows.
                    None => Answer::Error(Errno::IO),
                },
            );
            false
        });
        self.helpers = waiting;
    }

    fn decide(&self, call: &Call, view: &mut View) -> Decision {
        let number = Some(call.number);
        let decided = if number == self.numbers.sysinfo {
            sysinfo(call, view)
        } else if number == self.numbers.affinity {
            affinity(call, view)
        } else if number == self.numbers.fsopen {
            fsopen(call)
        } else if number == self.numbers.mount {
            return mount(call).unwrap_or(Decision::Answer(Answer::Continue));
        } else if number == self.numbers.umount {
            return umount(call).unwrap_or(Decision::Answer(Answer::Continue));
        } else {
            Ok(Answer::Continue)
        };
        // Memory that cannot be read: the kernel finds the same and says so.
        Decision::Answer(decided.unwrap_or(Answer::Continue))
    }

    fn help(&mut self, call: &Call, change: &Change, policy: &Policy, single: &SingleThreaded) {
        let Ok((ours, theirs)) = Channel::pair() else { return self.answer(call.id, Answer::Error(Errno::NOMEM)) };
        match namespace::fork(single, Namespaces::NONE, None) {
            Ok(Fork::Child) => {
                let still_waits = || self.listener.is_waiting(call);
                let outcome = mounts::carry_out(change, call.thread, still_waits, policy, single);
                // The keeper answers an error when it hears nothing.
                let _ = theirs.send(&outcome, &[]);
                garth_kernel::descriptors::exit(0)
            }
            Ok(Fork::Parent { .. }) => self.helpers.push((ours, call.id)),
            Err(_) => self.answer(call.id, Answer::Error(Errno::NOMEM)),
        }
    }
}

enum Decision {
    Answer(Answer),
    /// Work that a child does, in the caller's namespaces.
    Help(Change),
}

/// `mount(source, target, type, flags, data)`.
fn mount(call: &Call) -> io::Result<Decision> {
    let [_, target, kind, flags, data, _] = call.arguments;
    let text = |address| match address {
        0 => Ok(Some(Vec::new())),
        address => notify::read_string(call.thread, address, LONGEST),
    };
    let what = match text(kind)?.as_deref() {
        Some(b"proc") => Virtual::Proc { options: text(data)?.unwrap_or_default() },
        Some(b"sysfs") => Virtual::Sys,
        _ => return Ok(Decision::Answer(Answer::Continue)),
    };
    match text(target)? {
        Some(target) => Ok(Decision::Help(Change::Mount { what, target, flags })),
        None => Ok(Decision::Answer(Answer::Error(Errno::NAMETOOLONG))),
    }
}

/// `umount2(target, flags)`.
fn umount(call: &Call) -> io::Result<Decision> {
    let [target, flags, ..] = call.arguments;
    Ok(match notify::read_string(call.thread, target, LONGEST)? {
        Some(target) => Decision::Help(Change::Unmount { target, flags }),
        None => Decision::Answer(Answer::Error(Errno::NAMETOOLONG)),
    })
}

fn fsopen(call: &Call) -> io::Result<Answer> {
    let kind = notify::read_string(call.thread, call.arguments[0], LONGEST)?;
    Ok(match kind.as_deref() {
        Some(b"proc" | b"sysfs") => Answer::Error(Errno::NOSYS),
        _ => Answer::Continue,
    })
}

fn sysinfo(call: &Call, view: &mut View) -> io::Result<Answer> {
    let bytes = view.sysinfo()?.to_bytes();
    Ok(match notify::write_memory(call.thread, call.arguments[0], &bytes) {
        Ok(()) => Answer::Value(0),
        // The caller's fault, or an undumpable process, whose memory is not for us.
        Err(_) => Answer::Continue,
    })
}

/// `sched_getaffinity(pid, size, mask)` of a thread on itself: as many processors as the limit says, unless the thread
/// was bound to some.
fn affinity(call: &Call, view: &mut View) -> io::Result<Answer> {
    let [of, size, mask, ..] = call.arguments;
    let cpus = view.cpus()?;
    let real = rustix::thread::sched_getaffinity(Some(call.thread))?;
    let online = view.host_cpus();
    let whole = real.count() as usize >= online;
    if of as u32 != 0 || !whole || cpus >= online {
        return Ok(Answer::Continue);
    }
    // The kernel's own mask has this many bytes, in whole longs (`sched_getaffinity(2)`).
    let length = online.div_ceil(64) * 8;
    if size < length as u64 || size % 8 != 0 {
        return Ok(Answer::Continue);
    }
    let mut bytes = vec![0u8; length];
    (0..cpus).for_each(|cpu| bytes[cpu / 8] |= 1 << (cpu % 8));
    notify::write_memory(call.thread, mask, &bytes)?;
    Ok(Answer::Value(i64::try_from(length).unwrap_or(8)))
}

fn is_readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
        && fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP)
        && (!fds[0].revents().is_empty())
}
