//! What commands print on standard output: tables for people, JSON for programs.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Writes to standard output; a reader that went away ends the command quietly with 141.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::io("cannot write to standard output", &error))
}

/// Writes one line.
pub fn line(text: impl AsRef<str>) -> Result<()> {
    print(&format!("{}\n", text.as_ref()))
}

/// Writes a value as JSON on lines of its own, indented.
pub fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value).map_err(|error| unprintable(&error))?)
}

/// Writes a value as JSON on one line: one of a stream.
pub fn json_line(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string(value).map_err(|error| unprintable(&error))?)
}

fn unprintable(error: &serde_json::Error) -> Failure {
    Failure::protocol("the answer cannot be printed as JSON").because(error)
}

/// Writes a note for a person: on stderr, and only when that is a terminal.
pub fn note(text: &str) {
    if rustix::termios::isatty(io::stderr()) {
        eprintln!("{text}");
    }
}

/// Columns as wide as their widest cell, two spaces between; the last is not padded.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = row_text(&widths, head);
    for row in rows {
        text += &row_text(&widths, row.each_ref().map(String::as_str));
    }
    text
}

fn row_text<const N: usize>(widths: &[usize; N], cells: [&str; N]) -> String {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    format!("{}\n", padded.join("  ").trim_end())
}

/// Cell text without control characters, which could move the reader's cursor or change its screen,
/// and no longer than `longest` characters.
pub fn cell(text: &str, longest: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if clean.chars().count() <= longest {
        return clean;
    }
    clean.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
}

/// Bytes for people: `12.3 MiB`.
pub fn bytes(count: u64) -> String {
    garth_spec::ByteSize::from_bytes(count).map_or_else(|_| "0 B".to_owned(), |size| size.to_string())
}

/// A time for people: how long it is before `now`, both in seconds since 1970.
pub fn ago(then: i64, now: i64) -> String {
    let seconds = (now - then).max(0);
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..172_800 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_spaces() {
        let rows = [["web".to_owned(), "running".to_owned(), String::new()], ["a".into(), "x".into(), "y".into()]];
        assert_eq!(table(["NAME", "STATE", "ID"], &rows), "NAME  STATE    ID\nweb   running\na     x        y\n");
    }

    #[test]
    fn a_process_cannot_write_escape_codes_through_a_table() {
        assert_eq!(cell("a\x1b[2Jb\n", 20), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(cell("abcdef", 4), "abc…");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(ago(0, 59), "59s ago");
        assert_eq!(ago(0, 7_200), "2h ago");
        assert_eq!(ago(10, 0), "0s ago");
        assert_eq!(ago(0, 864_000), "10d ago");
    }
}
