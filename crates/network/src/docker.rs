//! Being let through by Docker's firewall.
//!
//! Docker drops whatever the host forwards that it does not know (policy `DROP` of the chain
//! `FORWARD`), and reserves the chain `DOCKER-USER` for other people's rules. Two rules there let
//! our wires pass; what they may reach is still decided by our own table, which every packet passes
//! as well. Without Docker nothing is done here. A failure is only logged: it costs the sandboxes
//! their connection, never their enclosure.

use std::path::PathBuf;

use crate::config::Names;
use crate::program;

/// The chain that Docker never flushes.
pub(crate) const CHAIN: &str = "DOCKER-USER";

const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];

/// Adds the rules where they are missing.
pub(crate) fn accept(names: &Names) {
    for firewall in firewalls() {
        for rule in rules(names) {
            if !firewall.does("-C", &rule) && !firewall.does("-I", &rule) {
                let program = firewall.program.display();
                tracing::warn!(%program, rule, "Docker's firewall may keep sandboxes from the internet");
            }
        }
    }
}

/// Takes the rules out.
pub(crate) fn forget(names: &Names) {
    for firewall in firewalls() {
        for rule in rules(names) {
            // As often as it is there.
            while firewall.does("-C", &rule) && firewall.does("-D", &rule) {}
        }
    }
}

fn rules(names: &Names) -> [String; 2] {
    let wires = format!("{}+", names.wire_prefix());
    [format!("-i {wires} -j ACCEPT"), format!("-o {wires} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")]
}

/// Those of IPv4 and IPv6 in which Docker is.
fn firewalls() -> Vec<Firewall> {
    let installed = PROGRAMS.iter().filter_map(|name| Some(Firewall { program: program::find(name)? }));
    installed.filter(|firewall| firewall.run(&["-n", "-L", CHAIN])).collect()
}

struct Firewall {
    program: PathBuf,
}

impl Firewall {
    fn does(&self, action: &str, rule: &str) -> bool {
        let arguments: Vec<&str> = [action, CHAIN].into_iter().chain(rule.split(' ')).collect();
        self.run(&arguments)
    }

    /// Waits up to five seconds for others that hold the firewall's lock.
    fn run(&self, arguments: &[&str]) -> bool {
        let arguments: Vec<&str> = ["-w", "5"].iter().chain(arguments).copied().collect();
        program::run(&self.program, &arguments, "").is_ok_and(|output| output.status.success())
    }
}
