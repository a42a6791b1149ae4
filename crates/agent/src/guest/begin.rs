//! What a guest does once the host has told it what it is.

use std::os::fd::OwnedFd;

use garth_kernel::{random, supervise};
use garth_runtime::steps::{Etc, bound_capabilities, etc_files};
use garth_spec::{GuestAgain, GuestBegin, GuestBegun, GuestLimits, Hex};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::CapabilitySet;
use rustix::time::{ClockId, Timespec, clock_settime};
use sha2::{Digest, Sha256};

use super::bounds::{self, Bounds};
use super::disks::{self, Entered};
use super::{At, GuestFailure, devices, early, init, network};

/// What is held of a sandbox that this machine has become.
#[derive(Debug)]
pub(super) struct Held {
    bounds: Bounds,
    /// The disk's root.
    root: OwnedFd,
}

/// Becomes the project's sandbox; the agent's directory. The seed comes first: nothing that this machine makes up may be
/// what another of the same memory makes up.
pub(super) fn begin(order: &GuestBegin) -> Result<(Held, OwnedFd), GuestFailure> {
    renew(&order.entropy, order.realtime_ns)?;
    rustix::system::sethostname(order.hostname.as_bytes()).at(|| "set the host name".to_owned())?;
    devices::find().at(|| "find disks".to_owned())?;
    let Entered { state, root } = disks::enter(order)?;
    let content = format!("{}\n", String::from(order.machine_id));
    let machine_id = Etc::Content { name: "machine-id", content };
    let names = etc_files(&order.hostname, order.resolv_conf.as_deref(), &order.hosts);
    write(&root, names.iter().chain([&machine_id]))?;
    network::configure(order.network.as_ref())?;
    early::bound_memory(order.limits.memory)?;
    let bounds = Bounds::enter(&order.limits).at(|| "limit the processes".to_owned())?;
    supervise::come_first().at(|| "come before the processes".to_owned())?;
    if let Some(kept) = order.capabilities {
        let kept = CapabilitySet::from_bits_retain(kept);
        bound_capabilities(kept).at(|| "bound the capabilities".to_owned())?;
    }
    if let Some(init) = &order.agent.init {
        init::make_way(init).at(|| format!("start the init {init}"))?;
    }
    bounds::gather().at(|| "limit the processes".to_owned())?;
    Ok((Held { bounds, root }, state))
}

/// Goes on as the same sandbox, with another network.
pub(super) fn again(held: &Held, order: &GuestAgain) -> Result<(), GuestFailure> {
    renew(&order.entropy, order.realtime_ns)?;
    write(&held.root, etc_files(&order.hostname, order.resolv_conf.as_deref(), &order.hosts).iter())?;
    network::forget()?;
    network::configure(order.network.as_ref())
}

/// Lets processes use so much from now on.
pub(super) fn limit(held: &Held, limits: &GuestLimits) -> Result<(), GuestFailure> {
    held.bounds.set(limits).at(|| "limit the processes".to_owned())
}

fn write<'a>(root: &OwnedFd, mut files: impl Iterator<Item = &'a Etc>) -> Result<(), GuestFailure> {
    files.try_for_each(|file| file.keep_in(root).at(|| "write /etc".to_owned()))
}

/// What another machine of the same memory must not share: random numbers and the time.
fn renew(entropy: &Hex<64>, realtime_ns: u64) -> Result<(), GuestFailure> {
    random::reseed(&entropy.0).at(|| "seed the random numbers".to_owned())?;
    let (seconds, nanoseconds) = (realtime_ns / NANOSECONDS, realtime_ns % NANOSECONDS);
    let now = Timespec { tv_sec: seconds as i64, tv_nsec: nanoseconds as _ };
    clock_settime(ClockId::Realtime, now).at(|| "set the clock".to_owned())
}

const NANOSECONDS: u64 = 1_000_000_000;

/// What the host is answered.
pub(super) fn begun() -> Result<GuestBegun, GuestFailure> {
    let mut fresh = [0; 32];
    getrandom(&mut fresh, GetRandomFlags::empty()).at(|| "take random numbers".to_owned())?;
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    Ok(GuestBegun { random: Hex(Sha256::digest(fresh).into()), kernel })
}
