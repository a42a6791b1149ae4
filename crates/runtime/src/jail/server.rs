//! A program that serves a directory of the host to the one in a jail: in a jail of its own, with its own users.
//!
//! ```text
//!  guest --virtio--> hypervisor, a user of the host that no one else has
//!                        | a socket, and the guest's memory
//!                    server, root of a user namespace with 65,536 ids that no one else has
//!                        | a mount of the one directory, by which owners are the same on both sides
//! ```
use std::path::Path;

use super::{Given, JailPlan, Network, Order, Outside, Served, spawn};
use crate::error::{Doing, ErrorKind, Result};
use crate::ids::Claim;
use crate::{Sandbox, Volume};

impl Sandbox {
    /// Starts a program that serves a directory, which it finds at `/volume`, to the program in this jail. It belongs to
    /// the sandbox, counts against its limits and ends with it. No directory is served that is in `hidden`, or holds it.
    pub fn serve(&self, plan: &JailPlan, volume: &Volume, hidden: &Path, given: Given<'_>) -> Result<()> {
        let doing = || format!("serve {}", volume.host.display());
        crate::check_volume(&volume.host, hidden)?;
        let (shared, (slot, user)) = (self.shared(), self.jail().doing(doing)?);
        let served = Served { volume: volume.clone(), hidden: hidden.to_owned() };
        let (cgroups, network) = (shared.cgroups.directories(&slot), Network::Nothing);
        let order = Order { plan: plan.clone(), network, user: user.first.get(), cgroups, served: Some(served) };
        let outside = Outside { user: &user, given, directory: &shared.directory(self.id()) };
        spawn(&shared.agent, &order, outside).map(drop).doing(doing)
    }

    fn jail(&self) -> std::result::Result<(String, Claim), ErrorKind> {
        self.slot(|slot| {
            let ids = slot.ids.as_ref().ok_or(ErrorKind::NoIds)?;
            let claim = Claim { first: ids.first, lock: ids.lock.try_clone()? };
            Ok((slot.name.clone(), claim))
        })
    }
}
