//! The ruleset as text, and the calls of `nft` that load it.

use std::collections::BTreeMap;
use std::io;
use std::process::Output;

use crate::blocked::{BLOCKED4, BLOCKED6, Block};
use crate::config::{ANY_GATEWAY, ANY_WIRE, Names};
use crate::layout::Layout;
use crate::{Error, ErrorKind, program};

/// Tracked connections that one sandbox may have at a time; the kernel's table usually holds
/// 262,144 for the whole host (`net.netfilter.nf_conntrack_max`).
const FLOWS: u32 = 4096;

/// What a wire may have beyond its rate at once, besides a second's worth: packets of 64 KiB pass whole.
const BURST: u64 = 128 << 10;

/// The rates of wires that have one, by interface, in bytes a second.
pub(crate) type Rates = BTreeMap<u32, u64>;

/// The whole ruleset; loading it replaces an older version in one step.
pub(crate) fn text(names: &Names, layout: &Layout, rates: &Rates) -> String {
    let rated = rates.iter().map(|(wire, rate)| add_rate(names, *wire, *rate));
    without_rates(names, layout) + &rated.collect::<String>()
}

/// A wire's rate in the place of another, in one step.
pub(crate) fn change_rate(names: &Names, wire: u32, from: Option<u64>, to: Option<u64>) -> String {
    let removed = from.map(|_| {
        let remove = |set| format!("delete element inet {} {set} {{ {wire} }}\n", names.table());
        SETS.map(remove).concat()
    });
    removed.unwrap_or_default() + &to.map(|rate| add_rate(names, wire, rate)).unwrap_or_default()
}

const SETS: [&str; 2] = ["sent", "received"];

fn add_rate(names: &Names, wire: u32, rate: u64) -> String {
    let limit = format!("limit rate over {rate} bytes/second burst {BURST} bytes");
    SETS.map(|set| format!("add element inet {} {set} {{ {wire} {limit} }}\n", names.table())).concat()
}

fn without_rates(names: &Names, layout: &Layout) -> String {
    let elements = |blocks: &[Block]| blocks.iter().map(|b| b.network).collect::<Vec<_>>().join(", ");
    let mut text = String::new();
    for line in include_str!("ruleset.nft").lines().filter(|line| !line.trim_start().starts_with('#')) {
        text.push_str(line);
        text.push('\n');
    }
    // The longer name first where one contains another.
    let words = [
        ("ANY_GATEWAY", format!("\"{ANY_GATEWAY}*\"")),
        ("ANY_WIRE", format!("\"{ANY_WIRE}*\"")),
        ("BLOCKED4", elements(BLOCKED4)),
        ("BLOCKED6", elements(BLOCKED6)),
        ("GATEWAY4", layout.gateway4().to_string()),
        ("SUBNET4", layout.network4().to_string()),
        ("SUBNET6", layout.network6().to_string()),
        ("WIRES", format!("\"{}*\"", names.wire_prefix())),
        ("TABLE", names.table()),
        ("FLOWS", FLOWS.to_string()),
        ("PORT", layout.dns_port.to_string()),
    ];
    words.iter().fold(text, |text, (word, value)| text.replace(word, value))
}

/// The table goes, whether it was there or not.
pub(crate) fn removal(table: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\n")
}

/// Runs `nft -f -` in the network namespace of the calling thread: all of `script` or nothing.
pub(crate) fn load(script: &str) -> Result<(), Error> {
    let output = run(&["-f", "-"], script)?;
    if output.status.success() { Ok(()) } else { Err(refused(&output)) }
}

/// What `nft` lists for these arguments; `None` when it says that there is no such thing.
pub(crate) fn list(arguments: &[&str]) -> Result<Option<String>, Error> {
    let output = run(arguments, "")?;
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    match String::from_utf8_lossy(&output.stderr).contains("No such file or directory") {
        true => Ok(None),
        false => Err(refused(&output)),
    }
}

/// The rules as they are in the kernel, without counters and without what sets hold; for comparing
/// with a later state. `None` when the table is gone.
pub(crate) fn loaded(names: &Names) -> Result<Option<String>, Error> {
    list(&["-s", "-t", "list", "table", "inet", &names.table()])
}

fn run(arguments: &[&str], input: &str) -> Result<Output, Error> {
    let nft =
        program::find("nft").ok_or_else(|| Error::new(ErrorKind::NftMissing, "the nft program is not installed"))?;
    program::run(&nft, arguments, input)
        .map_err(|error| Error::because(ErrorKind::RulesetRefused, "cannot run nft", error))
}

fn refused(output: &Output) -> Error {
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Error::because(ErrorKind::RulesetRefused, "nft refused the sandboxes' ruleset", io::Error::other(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_template_is_filled_in() {
        let text = text(&Names::new("ab").unwrap(), &Layout::choose(&[]).unwrap(), &Rates::new());
        let left: Vec<_> = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| {
                word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit())
            })
            .filter(|word| word.contains(|c: char| c.is_ascii_uppercase()))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(text.contains("iifname != \"gvab-*\" accept"));
    }

    #[test]
    fn a_rate_takes_the_place_of_another_both_ways() {
        let names = Names::new("ab").unwrap();
        let lines = |from, to| change_rate(&names, 9, from, to).lines().map(str::to_owned).collect::<Vec<_>>();
        let added = "add element inet garth_ab sent { 9 limit rate over 500 bytes/second burst 131072 bytes }";
        assert_eq!(lines(None, Some(500))[0], added);
        assert_eq!((lines(None, Some(500)).len(), lines(Some(1), Some(500)).len()), (2, 4));
        assert_eq!(lines(Some(1), None), SETS.map(|set| format!("delete element inet garth_ab {set} {{ 9 }}")));
        assert!(lines(None, None).is_empty());
        let whole = text(&names, &Layout::choose(&[]).unwrap(), &Rates::from([(9, 500)]));
        assert!(whole.contains(added), "{whole}");
    }
}
