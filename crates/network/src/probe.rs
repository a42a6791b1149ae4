//! What the network needs from this host, for `doctor`.

use std::error::Error as StdError;
use std::fs;
use std::os::fd::AsFd;

use garth_kernel::netlink::Socket;
use garth_kernel::netns;

use crate::config::{ANY_WIRE, Names};
use crate::forwarding::Forwarding;
use crate::{Error, docker, host, program, ruleset};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is needed.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do when it is not there.
    pub fix: Option<String>,
}

impl Finding {
    fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, ok: true, detail: detail.into(), fix: None }
    }

    fn bad(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, ok: false, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// Looks at the host that the calling thread is in; changes nothing on it. Needs the daemon's
/// privileges for most answers.
pub(crate) fn probe() -> Vec<Finding> {
    let mut findings = vec![nft(), trial()];
    findings.extend(uplinks());
    findings.push(resolvers());
    findings.extend(firewalls());
    findings
}

fn nft() -> Finding {
    match program::find("nft") {
        Some(path) => Finding::good("nft", path.display().to_string()),
        None => Finding::bad("nft", "the nft program is not installed", "apt install nftables"),
    }
}

/// Does everything once, in a namespace that is thrown away.
fn trial() -> Finding {
    const NAME: &str = "rules and wires";
    let outcome = std::thread::spawn(|| {
        netns::unshare().map_err(|error| Error::kernel("cannot make a network namespace", error))?;
        let home = netns::current().map_err(|error| Error::kernel("cannot open a network namespace", error))?;
        netns::enter(home.as_fd()).map_err(|error| Error::kernel("cannot enter a network namespace", error))?;
        host::try_out(&Names::new("probe")?, &home)
    });
    match outcome.join() {
        Ok(Ok(())) => Finding::good(NAME, "made and removed in a namespace of their own"),
        Ok(Err(error)) => {
            let fix =
                error.hint().unwrap_or("load the kernel modules nf_tables, nft_masq, nft_fib_inet, veth and bridge");
            Finding::bad(NAME, whole(&error), fix)
        }
        Err(_) => Finding::bad(NAME, "the trial panicked", "report this as a bug"),
    }
}

fn uplinks() -> Vec<Finding> {
    let open = Socket::route().map_err(|error| Error::kernel("cannot open a netlink socket", error));
    let [ipv4, ipv6] = match open.and_then(|mut socket| Forwarding::look(&mut socket)) {
        Ok(found) => found,
        Err(error) => return vec![Finding::bad("uplink", whole(&error), "run this as root")],
    };
    let ipv4 = match ipv4.is_empty() {
        false => Finding::good("IPv4 uplink", ipv4.join(", ")),
        true => Finding::bad("IPv4 uplink", "no default route", "connect this host to a network"),
    };
    // Programs try IPv4 first from a private IPv6 address (RFC 6724), so this is no fault.
    let ipv6 = match ipv6.is_empty() {
        false => ipv6.join(", "),
        true => "no default route: sandboxes reach IPv4 only".to_owned(),
    };
    vec![ipv4, Finding::good("IPv6 uplink", ipv6)]
}

fn resolvers() -> Finding {
    const NAME: &str = "DNS";
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let named: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim).collect();
    match named.is_empty() {
        false => Finding::good(NAME, format!("questions go to {}", named.join(", "))),
        true => {
            let detail = "/etc/resolv.conf names no resolver; 127.0.0.1 is asked";
            Finding::bad(NAME, detail, "name one: echo 'nameserver 9.9.9.9' >> /etc/resolv.conf")
        }
    }
}

/// Rules of others that drop what a host forwards, or what it receives.
fn firewalls() -> Vec<Finding> {
    let Ok(Some(json)) = ruleset::list(&["-j", "list", "chains"]) else { return Vec::new() };
    let accepts = |chain: &Chain<'_>| {
        let listed = ruleset::list(&["list", "chain", chain.family, chain.table, chain.name]);
        listed.is_ok_and(|rules| rules.is_some_and(|rules| rules.contains(&format!("iifname \"{ANY_WIRE}*\""))))
    };
    judge(&serde_json::from_str(&json).unwrap_or_default(), accepts)
}

/// A chain of somebody's table.
struct Chain<'a> {
    family: &'a str,
    table: &'a str,
    name: &'a str,
    hook: &'a str,
    policy: &'a str,
}

fn judge(json: &serde_json::Value, accepts: impl Fn(&Chain<'_>) -> bool) -> Vec<Finding> {
    let objects = json["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let chains: Vec<Chain<'_>> = objects.iter().filter_map(|object| chain(&object["chain"])).collect();
    let of_docker =
        |chain: &Chain<'_>| chains.iter().any(|other| other.name == docker::CHAIN && other.family == chain.family);
    let dropping = chains.iter().filter(|chain| chain.policy == "drop" && ["forward", "input"].contains(&chain.hook));
    let mut findings: Vec<Finding> = dropping
        .map(|chain| match chain.hook == "forward" && of_docker(chain) {
            true => Finding::good("firewall", "Docker's; sandboxes are let through by two rules in DOCKER-USER"),
            false if accepts(chain) => Finding::good("firewall", format!("{} lets sandboxes through", chain.place())),
            false => chain.refuses(),
        })
        .collect();
    if chains.iter().any(|chain| chain.table == "firewalld") {
        let fix =
            format!("firewall-cmd --permanent --zone=trusted --add-interface={ANY_WIRE}+ && firewall-cmd --reload");
        let detail = "firewalld rejects sandboxes unless their wires are in a zone that it trusts";
        findings.push(Finding { fix: Some(fix), ..Finding::good("firewall", detail) });
    }
    findings
}

impl Chain<'_> {
    fn place(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }

    fn refuses(&self) -> Finding {
        let place = self.place();
        let insert = |rule: &str| format!("nft 'insert rule {place} {rule} accept'");
        let receive = insert(&format!("iifname \"{ANY_WIRE}*\""));
        if self.hook == "input" {
            let detail = format!("{place} drops what it does not know, and so the sandboxes' DNS");
            return Finding::bad("firewall", detail, receive);
        }
        let answers = insert(&format!("oifname \"{ANY_WIRE}*\" ct state established,related"));
        let detail = format!("{place} drops what it does not know, and so all that sandboxes send");
        Finding::bad("firewall", detail, format!("{receive} && {answers}"))
    }
}

fn chain(json: &serde_json::Value) -> Option<Chain<'_>> {
    let text = |key: &str| json[key].as_str();
    Some(Chain {
        family: text("family")?,
        table: text("table")?,
        name: text("name")?,
        hook: text("hook").unwrap_or_default(),
        policy: text("policy").unwrap_or_default(),
    })
}

/// An error and everything that led to it, in one line.
fn whole(error: &dyn StdError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", whole(cause)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chains: &[[&str; 5]], expected: &[(bool, &str)]) {
        let chains: Vec<_> = chains
            .iter()
            .map(|[family, table, name, hook, policy]| {
                serde_json::json!({"chain": {
                    "family": family, "table": table, "name": name, "hook": hook, "policy": policy
                }})
            })
            .collect();
        let findings = judge(&serde_json::json!({"nftables": chains}), |chain| chain.table == "open");
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, (ok, word)) in findings.iter().zip(expected) {
            let text = format!("{} {}", finding.detail, finding.fix.as_deref().unwrap_or_default());
            assert!(finding.ok == *ok && text.contains(word), "{finding:?}");
        }
    }

    #[test]
    fn a_firewall_that_drops_comes_with_the_rule_that_mends_it() {
        check(
            &[["inet", "filter", "forward", "forward", "drop"]],
            &[(false, "insert rule inet filter forward iifname")],
        );
        check(&[["ip", "filter", "INPUT", "input", "drop"]], &[(false, "insert rule ip filter INPUT iifname")]);
    }

    #[test]
    fn a_firewall_that_was_mended_or_lets_pass_is_no_fault() {
        check(&[["inet", "open", "forward", "forward", "drop"]], &[(true, "lets sandboxes through")]);
        check(&[["inet", "filter", "forward", "forward", "accept"], ["inet", "f", "o", "output", "drop"]], &[]);
    }

    #[test]
    fn docker_is_no_fault() {
        let docker = ["ip", "filter", "DOCKER-USER", "", ""];
        check(&[["ip", "filter", "FORWARD", "forward", "drop"], docker], &[(true, "Docker")]);
        check(&[["ip6", "filter", "FORWARD", "forward", "drop"], docker], &[(false, "ip6 filter FORWARD")]);
    }

    #[test]
    fn firewalld_is_named() {
        check(&[["inet", "firewalld", "filter_FORWARD", "forward", "accept"]], &[(true, "--zone=trusted")]);
    }
}
