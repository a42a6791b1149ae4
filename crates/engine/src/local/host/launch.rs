//! Starts the program that runs a guest in its jail, and those that serve it directories in theirs.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use garth_runtime::Sandboxes;
use garth_runtime::jail::{Access, Given, JailPlan, Shown};
use garth_spec::{Handler, Limits};
use garth_vm::{Accelerator, Begin, Control, Descriptor, DriveAccess, Launch, Machine, Place, Vmm};

use super::failure::Explain as _;
use super::machine::{Guest, MachineRecord, outer, own};
use super::shares::Shares;
use crate::agent::{Agent, Channel, Door};
use crate::error::{Error, ErrorKind};
use crate::local::Order;

/// How much of a failed guest's last words is passed on.
const WORDS: usize = 600;

/// Where machines are started.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) sandboxes: &'a Sandboxes,
    /// What no volume may show.
    pub(super) hidden: &'a Path,
}

/// A machine that is being started.
pub(super) struct Started {
    pub(super) guest: Guest,
    pub(super) control: Control,
    console: File,
    errors: File,
}

/// Starts the program; the machine in it waits.
pub(super) fn launch(
    site: Site<'_>,
    order: &Order<'_>,
    tap: &mut Option<OwnedFd>,
    handler: Handler,
    machine: &Machine,
    begin: Begin<'_>,
) -> Result<Started, Error> {
    let vmm = Vmm::find(handler).explain()?;
    let jail = site.sandboxes.new_jail(order.id).explain()?;
    let place = Place { host: jail.directory().to_owned(), own: jail.own() };
    let doing = |error: std::io::Error| Error::because(ErrorKind::Start, error).step("prepare the machine");
    let mut writable = machine.drives.iter().filter(|drive| drive.access == DriveAccess::ReadWrite);
    writable.try_for_each(|drive| jail.give(&drive.file)).map_err(doing)?;
    let launch = vmm.launch(machine, begin);
    let channel = UnixListener::bind(place.channel()).map_err(doing)?;
    let orders = UnixListener::bind(place.control()).map_err(doing)?;
    let shares = match launch.sockets.is_empty() {
        true => Shares::connected(&place, machine.shares.len()),
        false => Shares::named(&place, &jail, machine.shares.len()),
    };
    let shares = shares.map_err(doing)?;
    let prints = launch.descriptors.contains(&Descriptor::Output);
    let (console, theirs) = if prints { endless_pipe() } else { pair() }.map_err(doing)?;
    let (errors, said) = std::io::pipe().map_err(doing)?;
    rustix::io::ioctl_fionbio(&said, true).map_err(|error| doing(error.into()))?;
    if launch.tap.is_some() {
        // A program that did not get it to work had it before.
        let again = || order.lease.netns.as_ref().map(|netns| garth_network::Lease::tap_again(netns.as_fd()));
        let tap = tap.take().map(Ok).or_else(again).ok_or(ErrorKind::Network)?.explain()?;
        garth_network::Lease::give_tap(tap, jail.user()).explain()?;
    }
    let fds = launch
        .descriptors
        .iter()
        .filter_map(|descriptor| match descriptor {
            Descriptor::Channel => Some(Ok(channel.as_fd())),
            Descriptor::Control => Some(Ok(orders.as_fd())),
            Descriptor::Console => Some(Ok(theirs.as_fd())),
            Descriptor::Share(number) => Some(shares.fd(*number)),
            Descriptor::Tap => Some(tap.as_ref().map(OwnedFd::as_fd).ok_or(ErrorKind::Network)),
            Descriptor::Output => None,
        })
        .collect::<Result<Vec<BorrowedFd<'_>>, ErrorKind>>()?;
    let output = prints.then(|| theirs.try_clone()).transpose().map_err(doing)?;
    // Who opens its tap by name has to be where it is, and who is given it need not.
    let netns = order.lease.netns.as_ref().filter(|_| launch.tap.is_some()).map(OwnedFd::as_fd);
    let given = Given { fds: &fds, netns, output, errors: said.try_clone().map_err(doing)?.into() };
    let own = own(machine.accelerator, machine.shares.len());
    let limits = outer(&order.project.spec.limits, machine.memory, own)?;
    let sandbox = jail.start(&plan(launch, limits, Some(&place)), given).explain()?;
    let served = shares.serve(&sandbox, &order.project.spec.volumes, site.hidden, &said);
    if let Err(error) = served {
        sandbox.destroy().explain()?;
        return Err(error.step("serve the volumes"));
    }
    let record = MachineRecord {
        sandbox: sandbox.record(),
        handler,
        memory: machine.memory,
        vcpus: machine.vcpus,
        mac: machine.nic.map(|nic| nic.mac),
        translated: machine.accelerator == Accelerator::Tcg,
        shares: machine.shares.len(),
    };
    let errors = File::from(OwnedFd::from(errors));
    match vmm.control(&place).explain() {
        Ok(control) => Ok(Started { guest: Guest { sandbox, record, vmm, place }, control, console, errors }),
        Err(error) => {
            let last = last_words(&console, errors);
            sandbox.destroy().explain()?;
            let error = error.step("start the machine");
            Err(match last {
                Some(last) => error.hint(last),
                None => error,
            })
        }
    }
}

impl Started {
    /// Ends it, with what it said where it failed.
    pub(super) fn end<T>(self, outcome: Result<T, Error>) -> Result<T, Error> {
        let Self { guest, control, console, errors } = self;
        drop(control);
        let last = outcome.as_ref().err().and_then(|_| last_words(&console, errors));
        guest.sandbox.destroy().explain()?;
        outcome.map_err(|error| match last {
            Some(last) => error.hint(format!("the machine's last words: {last}")),
            None => error,
        })
    }

    pub(super) fn agent(&self) -> Arc<Agent> {
        Arc::new(Agent::behind(Door::Channel(Channel::new(self.guest.channel()))))
    }
}

fn pair() -> std::io::Result<(File, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((File::from(OwnedFd::from(ours)), theirs.into()))
}

/// A pipe that the program holds both ends of: when nobody listens any more and it is full, what is said is lost. Of one
/// that is broken Firecracker hears by a signal, and its guest stands still: the signal's handler logs, to the same pipe.
fn endless_pipe() -> std::io::Result<(File, OwnedFd)> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let (ours, theirs) = std::io::pipe()?;
    let path = format!("/proc/self/fd/{}", theirs.as_raw_fd());
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let both = File::options().read(true).write(true).custom_flags(flags).open(path)?;
    Ok((File::from(OwnedFd::from(ours)), both.into()))
}

pub(super) fn plan(launch: Launch, limits: Limits, place: Option<&Place>) -> JailPlan {
    let mut shown: Vec<Shown> = launch
        .shown
        .into_iter()
        .map(|shown| Shown { from: shown.from, at: shown.at, access: access(shown.access) })
        .collect();
    if let Some(place) = place {
        let sockets = launch.sockets.into_iter().enumerate();
        shown.extend(sockets.map(|(number, at)| Shown { from: place.share(number), at, access: Access::Read }));
    }
    shown.extend(place.map(|place| Shown { from: place.own.clone(), at: "/own".into(), access: Access::Write }));
    shown.extend(["/dev/null", "/dev/urandom"].map(|device| Shown {
        from: device.into(),
        at: device.into(),
        access: Access::Device,
    }));
    JailPlan { program: launch.program, arguments: launch.arguments, shown, limits }
}

fn access(access: garth_vm::Access) -> Access {
    match access {
        garth_vm::Access::Read => Access::Read,
        garth_vm::Access::Run => Access::Run,
        garth_vm::Access::Write => Access::Write,
        garth_vm::Access::Device => Access::Device,
    }
}

/// What a machine that failed had said, on its console and to its makers.
fn last_words(console: &File, errors: File) -> Option<String> {
    let mut said = Vec::new();
    for (from, most) in [(&errors, 64 << 10), (console, 1 << 20)] {
        let _ = rustix::io::ioctl_fionbio(from, true);
        let _ = from.take(most).read_to_end(&mut said);
    }
    let text = String::from_utf8_lossy(&said);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let from = text.char_indices().rev().nth(WORDS).map_or(0, |(at, _)| at);
    let text = text[from..].trim();
    (!text.is_empty()).then(|| text.to_owned())
}
