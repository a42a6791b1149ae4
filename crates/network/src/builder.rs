//! The thread that makes things in the kernel.
//!
//! A thread of its own because making a namespace means entering it, because `/proc/sys/net`, child
//! processes and new sockets follow the thread's namespace, and so that a lease can be taken from
//! what is ready without waiting for the kernel. What is given back is taken apart by another thread
//! (`remover.rs`): the kernel takes tens of milliseconds for it, in which it lets others work.

use std::os::fd::AsFd;
use std::sync::Arc;

use garth_kernel::netns;

use crate::host::{self, Host};
use crate::queue::{Check, Found, Request, Shared, Work, closed};
use crate::remover::Remover;
use crate::slot::{Place, Ready};
use crate::{Error, ErrorKind, LeaseRecord};

/// Runs the builder until the network ends.
pub(crate) fn run(shared: &Arc<Shared>) {
    let mut builder = Builder { shared, host: None, remover: None };
    if let Err(error) = netns::enter(shared.home.as_fd()) {
        tracing::error!(%error, "the network thread cannot enter the host's network namespace");
        shared.stop();
    }
    loop {
        match shared.next() {
            Work::Answer(request) => builder.answer(request),
            Work::Warm => builder.warm(),
            Work::End => break,
        }
    }
    // Whoever still waits is told: their replies are dropped.
    shared.abandon();
}

struct Builder<'a> {
    shared: &'a Arc<Shared>,
    /// Set up by the first lease.
    host: Option<Host>,
    remover: Option<Remover>,
}

impl Builder<'_> {
    fn answer(&mut self, request: Request) {
        // An asker that no longer waits for the answer has ended; there is nobody to tell.
        match request {
            Request::Make(id, place, reply) => {
                let ready_would_serve = matches!(place, Place::New);
                let made = self.make(place);
                let mut queue = self.shared.queue();
                if ready_would_serve {
                    queue.warming = made.is_ok();
                }
                if let Ok(ready) = &made {
                    queue.leases.insert(id, ready.record.clone());
                }
                drop(queue);
                drop(reply.send(made));
            }
            Request::Adopt(record, reply) => drop(reply.send(self.adopt(&record))),
            Request::Limit(wire, rate, reply) => {
                let limited = self.host().and_then(|host| host.limit(wire, rate));
                drop(reply.send(limited));
            }
            Request::Sweep(keep, reply) => drop(reply.send(self.sweep(&keep))),
            Request::Close(reply) => {
                let outcome = if self.shared.queue().leases.is_empty() { self.sweep(&[]) } else { Ok(()) };
                self.shared.stop();
                drop(reply.send(outcome));
            }
            Request::Look(Check::Rules) => self.look("the sandboxes' ruleset", Host::check_rules),
            Request::Look(Check::Uplinks) => self.look("the forwarding of the uplinks", Host::follow_uplinks),
        }
    }

    fn host(&mut self) -> Result<&mut Host, Error> {
        if self.remover.is_none() {
            self.remover = Some(Remover::start(self.shared)?);
        }
        if self.host.is_none() {
            let mut host = Host::set_up(self.shared)?;
            // Wires of an earlier daemon keep their slots until a sweep, whoever owns them.
            let mut queue = self.shared.queue();
            host.wires()?.into_iter().for_each(|(slot, _)| queue.slots.claim(slot));
            drop(queue);
            self.host = Some(host);
        }
        self.host.as_mut().ok_or_else(closed)
    }

    fn make(&mut self, place: Place) -> Result<Ready, Error> {
        let shared = self.shared;
        let host = self.host()?;
        let slot = shared.queue().slots.take()?;
        let made = host.make(slot, place, &shared.home);
        if let Err(error) = &made {
            if error.kind() == ErrorKind::Closed {
                shared.stop();
            }
            // A half-made wire is removed by the next sweep if not now; its slot stays taken then.
            if host.remove(&[slot]).is_ok() {
                shared.queue().slots.give_back(slot);
            }
        }
        made
    }

    fn warm(&mut self) {
        match self.make(Place::New) {
            Ok(ready) => self.shared.queue().warm.push_back(ready),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no network is kept ready");
                self.shared.queue().warming = false;
            }
        }
    }

    fn adopt(&mut self, record: &LeaseRecord) -> Result<Found, Error> {
        if !self.host()?.holds(record) {
            return Ok(Found::Gone);
        }
        self.shared.queue().slots.claim(record.slot);
        Ok(Found::Alive)
    }

    fn sweep(&mut self, keep: &[u16]) -> Result<(), Error> {
        if keep.is_empty() {
            return self.clear();
        }
        let shared = self.shared;
        let host = self.host()?;
        let busy = shared.queue().busy();
        let mut swept: Vec<u16> = host.wires()?.into_iter().map(|(slot, _)| slot).collect();
        swept.retain(|slot| !keep.contains(slot) && !busy.contains(slot));
        host.remove(&swept)?;
        host.forget_rates()?;
        let mut queue = shared.queue();
        swept.into_iter().for_each(|slot| queue.slots.give_back(slot));
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Error> {
        let warm = self.shared.forget_wires();
        self.host = None;
        let cleared = host::clear(&self.shared.names);
        // After their wires: a namespace that goes takes its wire with it, but not at once.
        drop(warm);
        cleared
    }

    fn look(&mut self, what: &str, act: impl FnOnce(&mut Host) -> Result<(), Error>) {
        let Some(host) = &mut self.host else { return };
        if let Err(error) = act(host) {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot restore {what}");
        }
    }
}
