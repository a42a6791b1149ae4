//! docs/cli.md: every verb's help as it is printed, in one page.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use crate::cli::Cli;
use crate::exit;

/// The page. The same on every machine: no terminal's width, no environment.
pub fn page() -> String {
    let mut root = Cli::command().term_width(100).bin_name("garth");
    root.build();
    let mut page = "# The command line\n\nMade from the code by `just generate`; do not edit.\n".to_owned();
    section(&mut page, &mut root, 2);
    let _ = write!(page, "\n## Exit codes\n\n```text\n{}\n```\n", exit::TABLE);
    page
}

fn section(page: &mut String, command: &mut Command, level: usize) {
    let name = command.get_bin_name().unwrap_or_default().to_owned();
    let help = command.render_help().to_string();
    // Every command ends with the same three flags: once is enough.
    let own = if level == 2 { help } else { without_global_flags(&help) };
    let _ = write!(page, "\n{} {name}\n\n```text\n{}\n```\n", "#".repeat(level), own.trim_end());
    for verb in command.get_subcommands_mut().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        section(page, verb, level + 1);
    }
}

fn without_global_flags(help: &str) -> String {
    let paragraphs = help.split("\n\n").filter(|paragraph| !paragraph.starts_with("Every command:"));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_section() {
        let page = page();
        for verb in ["### garth exec", "#### garth image import", "## Exit codes"] {
            assert!(page.contains(verb), "{verb}");
        }
        assert_eq!(page.matches("--data-dir").count(), 1);
    }
}
