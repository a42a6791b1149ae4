//! docs/sysbox.md: its text, and the table of the results.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::stage::{Checked, Why};

const HEAD: &str = include_str!("head.md");

type Results<'a> = BTreeMap<u8, (&'a str, Checked)>;

/// One line per check.
pub fn rows(results: &Results<'_>) -> String {
    results.iter().fold(String::new(), |mut text, (number, (what, checked))| {
        let _ = writeln!(text, "| {number} | {what} | {} |", words(checked));
        text
    })
}

pub fn words(checked: &Checked) -> String {
    match checked {
        Ok(()) => "pass".to_owned(),
        Err(Why::Fail(why)) => format!("fail ({})", one_line(why)),
        Err(Why::Missing(what)) => format!("not on this kernel ({})", one_line(what)),
    }
}

fn one_line(text: &str) -> String {
    text.replace('|', "/").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The committed table and this run must agree, but for what this kernel cannot do.
pub fn compare(results: &Results<'_>) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/sysbox.md");
    let count = |word: &str| results.values().filter(|(_, checked)| words(checked).starts_with(word)).count();
    let (passed, failed, lacking) = (count("pass"), count("fail"), count("not"));
    if std::env::var_os("GARTH_REGENERATE").is_some() {
        let counts = format!("{passed} pass, {failed} fail, {lacking} cannot be told on the kernel of that run.");
        let text = format!("{HEAD}\n{counts}\n\n| | what | result |\n| --- | --- | --- |\n{}", rows(results));
        std::fs::write(&file, text).expect("docs/sysbox.md");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let mut wrong: Vec<String> = Vec::new();
    if !committed.starts_with(HEAD) {
        wrong.push("the text before the table is not head.md".to_owned());
    }
    let known: BTreeMap<u8, (&str, &str)> = committed.lines().filter_map(row).collect();
    for (number, (what, checked)) in results {
        let now = words(checked);
        match known.get(number) {
            Some((text, _)) if text != what => wrong.push(format!("{number}: the table says it is `{text}`")),
            Some((_, was)) if kind(was) == kind(&now) => {}
            _ if kind(&now) == "not" => crate::yard::skip(&format!("check {number}"), &now),
            // Another kernel than the table's can do more.
            Some((_, was)) if kind(was) == "not" && kind(&now) == "pass" => {}
            was => wrong.push(format!("{number}: {now}; the table says {:?}", was.map(|(_, was)| was))),
        }
    }
    let gone = known.keys().filter(|number| !results.contains_key(number));
    wrong.extend(gone.map(|number| format!("{number}: no longer tried")));
    assert!(wrong.is_empty(), "docs/sysbox.md is not what the sandboxes do (`just generate`):\n{}", wrong.join("\n"));
}

/// The first word: pass, fail, not.
fn kind(result: &str) -> &str {
    result.split_whitespace().next().unwrap_or_default()
}

/// `| 7 | what | result |`.
fn row(line: &str) -> Option<(u8, (&str, &str))> {
    let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
    let (number, what, result) = (cells.next()?.parse().ok()?, cells.next()?, cells.next()?);
    Some((number, (what, result)))
}
