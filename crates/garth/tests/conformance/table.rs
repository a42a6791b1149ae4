//! docs/conformance.md: its text, and the table of what came of the checks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::endpoint::{Check, Outcome};

const HEAD: &str = include_str!("head.md");

/// A check, and what came of it on one machine and on a cluster.
pub type Row = (Check, Outcome, Outcome);

pub fn rows(rows: &[Row]) -> String {
    rows.iter().fold(String::new(), |mut text, (check, local, cluster)| {
        let _ = writeln!(text, "| `{}` | {} | {} | {} |", check.word, check.what, word(*local), word(*cluster));
        text
    })
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "**fail**",
        Outcome::Missing => "missing",
        Outcome::Untold => "not tried",
    }
}

/// The committed table is what came of this run, and docs/kubernetes.md names what a cluster has not.
pub fn compare(found: &[Row]) {
    let text =
        format!("{HEAD}\n| | what a user relies on | local | kubernetes |\n| --- | --- | --- | --- |\n{}", rows(found));
    let file = docs("conformance.md");
    if std::env::var_os("GARTH_REGENERATE").is_some() {
        std::fs::write(&file, &text).expect("docs/conformance.md");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let was: BTreeMap<&str, &str> =
        committed.lines().filter_map(|line| Some((line.split(" | ").nth(1)?, line))).collect();
    let mut wrong: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter(|line| !committed.lines().any(|other| other == *line))
        .map(|line| {
            format!("now {line}\nwas {}", line.split(" | ").nth(1).and_then(|what| was.get(what)).unwrap_or(&"nothing"))
        })
        .collect();
    if wrong.is_empty() && committed != text {
        wrong.push("the text or the order is another".to_owned());
    }
    let explained = missing_on_a_cluster();
    let lacking = found.iter().filter(|(_, _, cluster)| matches!(cluster, Outcome::Missing | Outcome::Fail));
    let unexplained = lacking.filter(|(check, ..)| !explained.contains(&format!("`{}`", check.word)));
    wrong.extend(
        unexplained.map(|(check, ..)| format!("docs/kubernetes.md, \"What is missing\", has no `{}`", check.word)),
    );
    assert!(
        wrong.is_empty(),
        "docs/conformance.md is not what the engines do (`just generate`):\n{}",
        wrong.join("\n")
    );
}

/// The table of docs/kubernetes.md below this heading.
fn missing_on_a_cluster() -> String {
    let text = std::fs::read_to_string(docs("kubernetes.md")).expect("docs/kubernetes.md");
    let (_, section) = text.split_once("## What is missing").expect("the section");
    section.lines().filter(|line| line.starts_with("| ")).collect::<Vec<_>>().join("\n")
}

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}
