use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::prelude::*;
use serde::Serialize;

use crate::cycles::Cycles;
use crate::density::Density;
use crate::files::FileWork;
use crate::stats::{Quantiles, Samples};

/// Everything that one run found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    latencies: Vec<Latency>,
    density: Vec<Density>,
    files: Vec<FileWork>,
    cycles: Option<Cycles>,
}

#[derive(Debug, Serialize)]
struct Latency {
    what: String,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    subject: &'static str,
    at_once: usize,
    samples: usize,
    #[serde(flatten)]
    times: Quantiles,
    /// p50 over the floor's p50, same number at once.
    to_floor: f64,
}

impl Report {
    pub fn latency(&mut self, what: &str, all: Vec<Samples>) {
        let p50 = |subject, at_once| {
            let found = all.iter().find(|s: &&Samples| s.subject == subject && s.at_once == at_once);
            found.and_then(Samples::quantiles).map(|q| q.p50_ms)
        };
        let rows = all.iter().filter_map(|s| {
            let times = s.quantiles()?;
            let to_floor = times.p50_ms / p50("floor", s.at_once)?;
            Some(Row { subject: s.subject, at_once: s.at_once, samples: s.len(), times, to_floor })
        });
        let rows = rows.collect();
        self.latencies.push(Latency { what: what.to_owned(), rows });
    }

    pub fn density(&mut self, density: Vec<Density>) {
        self.density = density;
    }

    pub fn files(&mut self, files: Vec<FileWork>) {
        self.files = files;
    }

    pub fn cycles(&mut self, cycles: Cycles) {
        self.cycles = Some(cycles);
    }

    /// The figures as JSON and plot, and as tables between the markers of benchmarks.md, whose prose stays.
    pub fn write(&self, out: &Path) -> Result<()> {
        std::fs::create_dir_all(out)?;
        std::fs::write(out.join("benchmarks.json"), serde_json::to_string_pretty(self)? + "\n")?;
        self.plot(&out.join("benchmarks.svg"))?;
        let path = out.join("benchmarks.md");
        let old = std::fs::read_to_string(&path).unwrap_or_else(|_| format!("# Benchmarks\n\n{BEGIN}\n{END}\n"));
        let (head, rest) = old.split_once(BEGIN).context("benchmarks.md has lost its begin marker")?;
        let (_, tail) = rest.split_once(END).context("benchmarks.md has lost its end marker")?;
        let tables = self.tables()?;
        print!("{tables}");
        std::fs::write(path, format!("{head}{BEGIN}\n{tables}{END}{tail}"))?;
        Ok(())
    }

    fn tables(&self) -> Result<String> {
        let mut text = String::new();
        for latency in &self.latencies {
            writeln!(
                text,
                "\n### {}\n\n| subject | at once | p50 ms | p95 ms | p99 ms | p50 / floor | samples |",
                latency.what
            )?;
            writeln!(text, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
            for Row { subject, at_once, samples, times, to_floor } in &latency.rows {
                let Quantiles { p50_ms, p95_ms, p99_ms } = times;
                writeln!(
                    text,
                    "| {subject} | {at_once} | {p50_ms:.2} | {p95_ms:.2} | {p99_ms:.2} | {to_floor:.2} | {samples} |"
                )?;
            }
        }
        writeln!(
            text,
            "\n### Memory of an idle sandbox\n\n| sandboxes | PSS each, KiB | last tenth of the starts / first tenth |\n| ---: | ---: | ---: |"
        )?;
        for Density { sandboxes, pss_kib_each, slowdown } in &self.density {
            writeln!(text, "| {sandboxes} | {pss_kib_each:.0} | {slowdown:.2} |")?;
        }
        writeln!(
            text,
            "\n### File work inside against the host\n\n| work | host ms | inside ms | inside / host |\n| --- | ---: | ---: | ---: |"
        )?;
        for FileWork { what, host_ms, inside_ms } in &self.files {
            writeln!(text, "| {what} | {host_ms:.1} | {inside_ms:.1} | {:.2} |", inside_ms / host_ms)?;
        }
        if let Some(Cycles { count, seconds, before, after }) = &self.cycles {
            writeln!(
                text,
                "\n### {count} x create, start, `true`, remove\n\n{:.1} ms each. Before: {before:?}. After: {after:?}.\n",
                seconds * 1e3 / *count as f64
            )?;
        }
        Ok(text)
    }

    /// p50 of one at a time, per subject, as bars.
    fn plot(&self, path: &Path) -> Result<()> {
        let root = SVGBackend::new(path, (900, 360)).into_drawing_area();
        root.fill(&WHITE)?;
        let panels = root.split_evenly((1, self.latencies.len().max(1)));
        for (panel, latency) in panels.iter().zip(&self.latencies) {
            let rows: Vec<&Row> = latency.rows.iter().filter(|r| r.at_once == 1).collect();
            let most = rows.iter().map(|r| r.times.p50_ms).fold(0.0, f64::max) * 1.1;
            let mut chart = ChartBuilder::on(panel)
                .caption(format!("{}, p50 ms", latency.what), ("sans-serif", 16))
                .margin(10)
                .x_label_area_size(30)
                .y_label_area_size(45)
                .build_cartesian_2d((0..rows.len()).into_segmented(), 0.0..most)?;
            let name = |at: &SegmentValue<usize>| match at {
                SegmentValue::CenterOf(index) => rows.get(*index).map_or(String::new(), |r| r.subject.to_owned()),
                _ => String::new(),
            };
            chart.configure_mesh().disable_x_mesh().x_labels(rows.len()).x_label_formatter(&name).draw()?;
            let bar = |(index, row): (usize, &&Row)| {
                let colour = if row.subject == "garth" { RGBColor(34, 110, 60) } else { RGBColor(150, 150, 150) };
                let corners = [(SegmentValue::Exact(index), 0.0), (SegmentValue::Exact(index + 1), row.times.p50_ms)];
                let mut bar = Rectangle::new(corners, colour.filled());
                bar.set_margin(0, 0, 6, 6);
                bar
            };
            chart.draw_series(rows.iter().enumerate().map(bar))?;
        }
        root.present()?;
        Ok(())
    }
}

const BEGIN: &str = "<!-- figures: written by `just bench` -->";
const END: &str = "<!-- end of figures -->";
