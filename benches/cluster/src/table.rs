use std::fmt::Write as _;

use crate::stats::{Quantiles, Samples};

/// What was found, as it is written down.
#[derive(Debug, Default)]
pub struct Table {
    latencies: Vec<(&'static str, String, Samples, Option<&'static str>)>,
    lines: Vec<String>,
}

impl Table {
    /// Times of a subject at something; over those of `base` at the same, if that is named.
    pub fn add(&mut self, what: &str, samples: Samples, base: Option<&'static str>) {
        eprintln!("{what}: {} {:?}", samples.subject, samples.quantiles());
        self.latencies.push((samples.subject, what.to_owned(), samples, base));
    }

    pub fn say(&mut self, line: String) {
        eprintln!("{line}");
        self.lines.push(line);
    }

    pub fn text(&self) -> String {
        let mut text = String::from(
            "# Garth on Kubernetes, measured\n\nWritten by `just bench-cluster`: one machine, everything on it, in one run. Milliseconds.\n\n\
             | what | subject | n | p50 | p95 | p99 | beside | ratio p50 | ratio p99 |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for (subject, what, samples, base) in &self.latencies {
            let Some(Quantiles { p50_ms, p95_ms, p99_ms }) = samples.quantiles() else { continue };
            let beside = base.and_then(|base| {
                let found = self.latencies.iter().find(|(subject, at, ..)| *subject == base && at == what)?;
                let base_times = found.2.quantiles()?;
                Some(format!("{base} | {:.2}x | {:.2}x", p50_ms / base_times.p50_ms, p99_ms / base_times.p99_ms))
            });
            let beside = beside.unwrap_or_else(|| " | | ".to_owned());
            let count = samples.len();
            let _ =
                writeln!(text, "| {what} | {subject} | {count} | {p50_ms:.2} | {p95_ms:.2} | {p99_ms:.2} | {beside} |");
        }
        text.push('\n');
        for line in &self.lines {
            let _ = writeln!(text, "- {line}");
        }
        text
    }
}
