use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::budgets::{self, Budget};
use crate::cycles::Cycles;
use crate::daemon::{Idle, Pss};
use crate::density::Density;
use crate::files::Work;
use crate::guests::{Beside, Weight};
use crate::stats::{Interval, Quantiles, Ratios, Samples};
use crate::{machines, meminfo, peers, plot};

/// Everything that one run found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub budgets: Vec<Budget>,
    pub latencies: Vec<Latency>,
    pub guests: Vec<Beside>,
    pub weights: Vec<Weight>,
    pub work: Vec<Work>,
    pub density: Vec<Density>,
    pub daemon: Option<Idle>,
    pub cycles: Vec<Cycles>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
    pub seconds: f64,
}

/// What subjects are timed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Start,
    Exec,
    Meminfo,
    Machine,
}

/// What times are shown in.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    Milliseconds,
    Microseconds,
}

#[derive(Debug, Serialize)]
pub struct Latency {
    pub what: What,
    pub rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub subject: &'static str,
    pub at_once: usize,
    pub samples: usize,
    #[serde(flatten)]
    pub times: Quantiles,
    /// Over the base's, same number at once.
    pub to_base: Option<Ratios>,
}

impl What {
    pub fn title(self) -> &'static str {
        match self {
            Self::Start => "start + `true` + stop",
            Self::Exec => "`true` in a running sandbox",
            Self::Meminfo => "open, read, close /proc/meminfo inside",
            Self::Machine => "a kernel of its own",
        }
    }

    /// What all others are divided by.
    pub fn base(self) -> &'static str {
        match self {
            Self::Start | Self::Exec => peers::FLOOR,
            Self::Meminfo => meminfo::KERNEL,
            Self::Machine => machines::QEMU,
        }
    }

    pub fn unit(self) -> Unit {
        match self {
            Self::Start | Self::Exec | Self::Machine => Unit::Milliseconds,
            Self::Meminfo => Unit::Microseconds,
        }
    }
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
        }
    }

    pub fn per_ms(self) -> f64 {
        match self {
            Self::Milliseconds => 1.0,
            Self::Microseconds => 1e3,
        }
    }
}

impl Report {
    pub fn latency(&mut self, what: What, all: &[Samples]) {
        let base = |at_once| {
            let found = all.iter().find(|s| s.subject == what.base() && s.at_once == at_once);
            found.and_then(Samples::quantiles)
        };
        let rows = all.iter().filter_map(|s| {
            let times = s.quantiles()?;
            let to_base = base(s.at_once).map(|base| times.over(base));
            Some(Row { subject: s.subject, at_once: s.at_once, samples: s.len(), times, to_base })
        });
        self.latencies.push(Latency { what, rows: rows.collect() });
    }

    /// One at a time.
    pub fn p50_ms(&self, what: What, subject: &str) -> Option<f64> {
        let rows = &self.latencies.iter().find(|latency| latency.what == what)?.rows;
        rows.iter().find(|row| row.subject == subject && row.at_once == 1).map(|row| row.times.p50_ms)
    }

    /// What a guest takes beyond its own memory, over that of QEMU alone when there are as many.
    pub fn beyond_to_bare(&self, weight: &Weight) -> Option<f64> {
        let bare = |other: &&Weight| other.subject == machines::QEMU && other.guests == weight.guests;
        Some(weight.beyond_kib() / self.weights.iter().find(bare)?.beyond_kib())
    }

    /// The figures as JSON and plot, and as tables between the markers of benchmarks.md, whose prose stays.
    pub fn write(mut self, out: &Path) -> Result<()> {
        self.budgets = budgets::of(&self);
        std::fs::create_dir_all(out)?;
        std::fs::write(out.join("benchmarks.json"), serde_json::to_string_pretty(&self)? + "\n")?;
        plot::draw(&self.latencies, &out.join("benchmarks.svg"))?;
        let path = out.join("benchmarks.md");
        let old = std::fs::read_to_string(&path).unwrap_or_else(|_| format!("# Benchmarks\n\n{BEGIN}\n{END}\n"));
        let (head, rest) = old.split_once(BEGIN).context("benchmarks.md has lost its begin marker")?;
        let (_, tail) = rest.split_once(END).context("benchmarks.md has lost its end marker")?;
        let mut tables = String::new();
        self.tables(&mut tables)?;
        print!("{tables}");
        std::fs::write(path, format!("{head}{BEGIN}\n{tables}{END}{tail}"))?;
        Ok(())
    }

    fn tables(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n{}, {:.0} s.\n", machine(), self.seconds)?;
        writeln!(text, "### Budgets\n\n| budget | target | measured | met |\n| --- | --- | --- | --- |")?;
        self.budgets.iter().try_for_each(|budget| writeln!(text, "{}", budget.row()))?;
        self.latencies.iter().try_for_each(|latency| latency.table(text))?;
        self.guests_table(text)?;
        self.weights_table(text)?;
        self.work_table(text)?;
        self.memory_table(text)?;
        for Cycles { runtime, count, seconds, before, after } in &self.cycles {
            writeln!(text, "\n### {count} x create, start, `true`, remove: {runtime}\n")?;
            writeln!(text, "{:.1} ms each.\n", seconds * 1e3 / *count as f64)?;
            writeln!(text, "| of the daemon | before | after |\n| --- | ---: | ---: |")?;
            for ((name, before), (_, after)) in before.named().into_iter().zip(after.named()) {
                writeln!(text, "| {name} | {before} | {after} |")?;
            }
        }
        if !self.notes.is_empty() {
            writeln!(text, "\n### Not measured\n")?;
            self.notes.iter().try_for_each(|note| writeln!(text, "- {}", note.replace('\n', " ")))?;
        }
        Ok(())
    }

    fn guests_table(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n### Inside a microvm, beside QEMU alone\n")?;
        writeln!(
            text,
            "| what | QEMU alone p50 ms | p95 ms | p99 ms | garth p50 ms | p95 ms | p99 ms | p50 / QEMU alone | p95 | p99 | samples |"
        )?;
        writeln!(text, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for Beside { what, bare, garth, to_bare, samples } in &self.guests {
            write!(text, "| {what} ")?;
            for Quantiles { p50_ms, p95_ms, p99_ms } in [bare, garth] {
                write!(text, "| {p50_ms:.2} | {p95_ms:.2} | {p99_ms:.2} ")?;
            }
            let Ratios { p50, p95, p99 } = to_bare;
            writeln!(text, "| {p50:.2} | {p95:.2} | {p99:.2} | {samples} |")?;
        }
        Ok(())
    }

    fn weights_table(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n### Memory of an idle microvm of 256 MiB: PSS each, MiB\n")?;
        writeln!(
            text,
            "| subject | guests | the guest's own | beyond it: QEMU | beside QEMU | all beyond | / qemu alone |"
        )?;
        writeln!(text, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for weight in &self.weights {
            let Weight { subject, guests, own_kib, qemu_kib, others_kib } = weight;
            let [own, qemu, others, beyond] =
                [*own_kib, *qemu_kib, *others_kib, weight.beyond_kib()].map(|kib| kib / 1024.0);
            let ratio = self.beyond_to_bare(weight).map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            writeln!(text, "| {subject} | {guests} | {own:.1} | {qemu:.1} | {others:.2} | {beyond:.1} | {ratio} |")?;
        }
        Ok(())
    }

    fn work_table(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n### Work inside\n")?;
        writeln!(text, "| work | host ms | default ms | sysbox ms | default / host | sysbox / default | 95 % |")?;
        writeln!(text, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for Work { what, host_ms, default_ms, sysbox_ms, sysbox_to_default } in &self.work {
            let sysbox = sysbox_ms.map_or_else(String::new, |ms| format!("{ms:.1}"));
            let (ratio, range) = sysbox_to_default.map_or_else(Default::default, |Interval { median, low, high }| {
                (format!("{median:.3}"), format!("{low:.3} to {high:.3}"))
            });
            let to_host = default_ms / host_ms;
            writeln!(
                text,
                "| {what} | {host_ms:.1} | {default_ms:.1} | {sysbox} | {to_host:.2} | {ratio} | {range} |"
            )?;
        }
        Ok(())
    }

    fn memory_table(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n### Memory of an idle sandbox: PSS each, KiB\n")?;
        writeln!(
            text,
            "| runtime | sandboxes | agent | keeper | spawner | daemon's growth | all | machine's, kernel included | last tenth of the starts / first |"
        )?;
        writeln!(text, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for Density { runtime, sandboxes, pss_kib, available_kib, slowdown } in &self.density {
            let Pss { agents, keepers, spawners, daemon } = pss_kib;
            let available = available_kib.map_or_else(String::new, |kib| format!("{kib:.0}"));
            writeln!(
                text,
                "| {runtime} | {sandboxes} | {agents:.0} | {keepers:.0} | {spawners:.0} | {daemon:.0} | {:.0} | {available} | {slowdown:.2} |",
                pss_kib.sum()
            )?;
        }
        Ok(())
    }
}

impl Latency {
    fn table(&self, text: &mut String) -> std::fmt::Result {
        let (unit, base) = (self.what.unit().name(), self.what.base());
        writeln!(text, "\n### {}\n", self.what.title())?;
        writeln!(
            text,
            "| subject | at once | p50 {unit} | p95 {unit} | p99 {unit} | p50 / {base} | p95 / {base} | p99 / {base} | samples |"
        )?;
        writeln!(text, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for Row { subject, at_once, samples, times, to_base } in &self.rows {
            let by = self.what.unit().per_ms();
            let Quantiles { p50_ms, p95_ms, p99_ms } = times;
            let (p50, p95, p99) = (p50_ms * by, p95_ms * by, p99_ms * by);
            let ratios = to_base.map_or_else(
                || " | | ".to_owned(),
                |Ratios { p50, p95, p99 }| format!("{p50:.2} | {p95:.2} | {p99:.2}"),
            );
            writeln!(text, "| {subject} | {at_once} | {p50:.2} | {p95:.2} | {p99:.2} | {ratios} | {samples} |")?;
        }
        Ok(())
    }
}

/// Where this was: the processors and the kernel.
fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cpus} processors, Linux {}", kernel.trim())
}

const BEGIN: &str = "<!-- figures: written by `just bench` -->";
const END: &str = "<!-- end of figures -->";
