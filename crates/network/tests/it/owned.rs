//! A network namespace that belongs to a user namespace of its own, as a `sysbox` sandbox has it,
//! and what root inside can send from there.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use garth_network::Lease;

use crate::world::{World, id, sh, world};

pub struct Owned {
    pub netns: OwnedFd,
    /// A process in both namespaces. Ends when its input does.
    holder: Child,
}

impl Owned {
    /// Empty, with `lo` down.
    pub fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["-Urn", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let netns = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap().into();
        Self { netns, holder }
    }

    /// Runs a shell script as root inside, with the privileges of the sandbox's user namespace and
    /// no others; it must succeed.
    pub fn root(&self, script: &str) -> String {
        let target = self.holder.id().to_string();
        let output = Command::new("nsenter").args(["-t", &target, "-U", "-n", "sh", "-c", script]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{script}\n{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Sends these frames from `eth0` as they are.
    pub fn send(&self, frames: &[Vec<u8>]) {
        let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let frames: Vec<String> = frames.iter().map(hex).collect();
        self.root(&format!(
            "python3 -c '
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
s.bind((\"eth0\", 0))
for frame in sys.argv[1:]: s.send(bytes.fromhex(frame))' {}",
            frames.join(" ")
        ));
    }

    /// Whether this is the namespace behind `netns`.
    pub fn is(&self, netns: &OwnedFd) -> bool {
        let link = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        link(&self.netns) == link(netns)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        self.holder.wait().unwrap();
    }
}

/// A world with a leased namespace of this kind, or `None` after saying what is missing.
pub fn owned(test: &str) -> Option<(World, Owned, Lease)> {
    let world = world(test)?;
    for program in ["/usr/bin/unshare", "/usr/bin/nsenter", "/usr/bin/python3"] {
        if !std::path::Path::new(program).exists() {
            eprintln!("SKIP {test}: {program}");
            return None;
        }
    }
    let owned = Owned::new();
    let lease = world.network.lease_in(id(), owned.netns.try_clone().unwrap()).unwrap();
    Some((world, owned, lease))
}

/// The host's end of this lease's wire.
pub fn wire(world: &World, lease: &Lease) -> String {
    let route = sh(&world.host, &format!("ip route show {}", lease.ipv4));
    route.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap().to_owned()
}
