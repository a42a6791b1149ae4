//! What docs promise of speed and size, against what was measured.

use garth_spec::Runtime;
use serde::Serialize;

use crate::garth::{DEFAULT, SYSBOX};
use crate::guests::{THERE_AND_BACK, TRUE};
use crate::machines::{BOOTED, QEMU, WARM};
use crate::meminfo::LXCFS;
use crate::peers::{BWRAP, FLOOR};
use crate::report::{Report, What};

/// One promise.
#[derive(Debug, Serialize)]
pub struct Budget {
    what: String,
    target: String,
    measured: String,
    verdict: Verdict,
}

/// Whether it is kept.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Met,
    /// The rounds differ among themselves by more than what is asked.
    Noise,
    /// And what stands between.
    NotMet(String),
    NotMeasured,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Met => f.write_str("yes"),
            Self::Noise => f.write_str("within the noise of this run"),
            Self::NotMet(between) => write!(f, "no: {between}"),
            Self::NotMeasured => f.write_str("not measured"),
        }
    }
}

impl Budget {
    pub fn row(&self) -> String {
        format!("| {} | {} | {} | {} |", self.what, self.target, self.measured, self.verdict)
    }
}

/// All of them, in the order of the design's list.
pub fn of(report: &Report) -> Vec<Budget> {
    const START: &str = "start default, `true`, stop: p50";
    let p50 = |what, subject| report.p50_ms(what, subject);
    let start = |subject| p50(What::Start, subject);
    let mut all = vec![
        ratio(START, 2.0, (DEFAULT, start(DEFAULT)), (FLOOR, start(FLOOR))),
        ratio(START, 1.0, (DEFAULT, start(DEFAULT)), (BWRAP, start(BWRAP))),
        ratio(
            "`true` in a running sandbox: p50",
            2.0,
            (DEFAULT, p50(What::Exec, DEFAULT)),
            ("fork + exec", p50(What::Exec, FLOOR)),
        ),
        ratio("start sysbox, `true`, stop: p50", 3.0, (SYSBOX, start(SYSBOX)), (DEFAULT, start(DEFAULT))),
        ratio(
            "read /proc/meminfo in sysbox: p50",
            1.0,
            (SYSBOX, p50(What::Meminfo, SYSBOX)),
            (LXCFS, p50(What::Meminfo, LXCFS)),
        ),
    ];
    let machine = |subject| p50(What::Machine, subject);
    all.push(ratio("boot a microVM, `true`, stop: p50", 1.3, (BOOTED, machine(BOOTED)), (QEMU, machine(QEMU))));
    all.push(ratio("the same from a template: p50", 0.1, (WARM, machine(WARM)), (BOOTED, machine(BOOTED))));
    let inside = |what| report.guests.iter().find(|beside| beside.what == what);
    let (exec, bare) = (inside(TRUE).map(|b| b.garth.p50_ms), inside(TRUE).map(|b| b.bare.p50_ms));
    let request = inside(THERE_AND_BACK).map(|b| b.garth.p50_ms);
    for base in [("a request to its agent", request), ("the same in QEMU alone", bare)] {
        all.push(ratio("`true` in a microVM that runs: p50", 2.0, ("garth microvm", exec), base));
    }
    all.push(weight(report));
    all.push(work(report));
    all.push(memory(report));
    all.push(Budget {
        what: "fork or snapshot of a 5 GiB disk".to_owned(),
        target: "independent of its size".to_owned(),
        measured: "there is no such command yet".to_owned(),
        verdict: Verdict::NotMeasured,
    });
    all.extend(daemon(report));
    all.push(rate(report));
    all.extend(leaks(report));
    all
}

/// `subject` takes at most `most` times as long as `base`.
fn ratio(what: &str, most: f64, subject: (&str, Option<f64>), base: (&str, Option<f64>)) -> Budget {
    let (name, base_name) = (subject.0, base.0);
    let target = match most {
        1.0 => format!("no slower than {base_name}"),
        _ => format!("≤ {most} x {base_name}"),
    };
    let (measured, verdict) = match (subject.1, base.1) {
        (Some(time), Some(base)) => {
            let measured = format!("{:.2} x ({} against {})", time / base, duration(time), duration(base));
            let over = time - most * base;
            let verdict = match over <= 0.0 {
                true => Verdict::Met,
                false => Verdict::NotMet(format!("{} too long", duration(over))),
            };
            (measured, verdict)
        }
        (None, _) => (format!("{name} did not run"), Verdict::NotMeasured),
        (_, None) => (format!("{base_name} did not run"), Verdict::NotMeasured),
    };
    Budget { what: what.to_owned(), target, measured, verdict }
}

fn duration(ms: f64) -> String {
    if ms < 0.1 { format!("{:.1} µs", ms * 1e3) } else { format!("{ms:.2} ms") }
}

/// The worst kind of work decides.
fn work(report: &Report) -> Budget {
    const MOST: f64 = 1.03;
    let ratios = report.work.iter().filter_map(|work| Some((&work.what, work.sysbox_to_default?)));
    let all: Vec<_> = ratios.collect();
    let slow: Vec<_> = all.iter().filter(|(_, ratio)| ratio.low > MOST).collect();
    let worst = all.iter().max_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
    let measured = worst.map_or_else(
        || "sysbox did not run".to_owned(),
        |(what, r)| format!("at most {:.3} x ({what}; {:.3} to {:.3} with 95 %)", r.median, r.low, r.high),
    );
    let verdict = match worst {
        None => Verdict::NotMeasured,
        Some((_, ratio)) if ratio.median <= MOST => Verdict::Met,
        Some(_) if slow.is_empty() => Verdict::Noise,
        Some(_) => {
            let slow: Vec<_> = slow.iter().map(|(what, r)| format!("{what}: {:.3} x", r.median)).collect();
            Verdict::NotMet(slow.join("; "))
        }
    };
    Budget {
        what: "file work, compiling, forking in sysbox".to_owned(),
        target: format!("≤ {MOST} x default"),
        measured,
        verdict,
    }
}

fn memory(report: &Report) -> Budget {
    const MOST_KIB: f64 = 2048.0;
    let most = report.density.iter().filter(|d| d.runtime == Runtime::Default).max_by_key(|d| d.sandboxes);
    let (measured, verdict) = match most {
        None => ("no sandbox was weighed".to_owned(), Verdict::NotMeasured),
        Some(density) => {
            let each = density.pss_kib.sum();
            (format!("{each:.0} KiB each of {}", density.sandboxes), at_most(each, MOST_KIB, "KiB"))
        }
    };
    Budget {
        what: "memory of an idle default sandbox, everything of ours included (PSS)".to_owned(),
        target: "≤ 2 MiB".to_owned(),
        measured,
        verdict,
    }
}

/// The most guests, booted or from a template.
fn weight(report: &Report) -> Budget {
    const MOST: f64 = 1.05;
    let weights = report.weights.iter().filter(|weight| weight.subject != QEMU);
    let worst = weights
        .filter_map(|weight| Some((weight, report.beyond_to_bare(weight)?)))
        .max_by(|(a, x), (b, y)| a.guests.cmp(&b.guests).then(x.total_cmp(y)));
    let (measured, verdict) = match worst {
        None => ("no guest was weighed".to_owned(), Verdict::NotMeasured),
        Some((weight, ratio)) => {
            let mib = weight.beyond_kib() / 1024.0;
            let measured = format!("{ratio:.2} x ({mib:.1} MiB each of {}; {})", weight.guests, weight.subject);
            (measured, at_most(ratio, MOST, "x"))
        }
    };
    Budget {
        what: "memory of an idle microVM beyond the guest's own (PSS)".to_owned(),
        target: format!("≤ {MOST} x {QEMU}"),
        measured,
        verdict,
    }
}

fn daemon(report: &Report) -> Option<Budget> {
    let idle = report.daemon?;
    let (mib, wakeups) = (idle.pss_kib / 1024.0, idle.wakeups_per_second);
    let verdict = match at_most(mib, 30.0, "MiB") {
        Verdict::Met => at_most(wakeups, 0.0, "wake-ups a second"),
        verdict => verdict,
    };
    Some(Budget {
        what: "daemon, idle after all of the above".to_owned(),
        target: "≤ 30 MiB, 0 wake-ups a second".to_owned(),
        measured: format!("{mib:.1} MiB, {wakeups:.1} a second"),
        verdict,
    })
}

/// The design says a thousand; a run may weigh fewer, and the row says how many.
fn rate(report: &Report) -> Budget {
    let most = report.density.iter().filter(|d| d.runtime == Runtime::Default).max_by_key(|d| d.sandboxes);
    let (what, measured, verdict) = match most {
        None => ("start rate".to_owned(), "no sandbox was started".to_owned(), Verdict::NotMeasured),
        Some(density) => (
            format!("start rate with up to {} running", density.sandboxes),
            format!("the last tenth took {:.2} x the first", density.slowdown),
            at_most(density.slowdown, 2.0, "x"),
        ),
    };
    Budget { what, target: "falls by at most 2 x".to_owned(), measured, verdict }
}

fn leaks(report: &Report) -> impl Iterator<Item = Budget> {
    report.cycles.iter().map(|cycles| {
        let left = cycles.left();
        Budget {
            what: format!("{} x create, start, `true`, remove ({})", cycles.count, cycles.runtime),
            target: "leave nothing".to_owned(),
            measured: if left.is_empty() { "nothing".to_owned() } else { left.join(", ") },
            verdict: if left.is_empty() { Verdict::Met } else { Verdict::NotMet(left.join(", ")) },
        }
    })
}

fn at_most(value: f64, most: f64, unit: &str) -> Verdict {
    if value <= most { Verdict::Met } else { Verdict::NotMet(format!("{:.2} {unit} too much", value - most)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(most: f64, subject: Option<f64>, base: Option<f64>, expected: &str) {
        assert_eq!(ratio("start", most, ("ours", subject), ("floor", base)).row(), expected);
    }

    #[test]
    fn a_ratio_says_what_stands_between() {
        check(2.0, Some(3.0), Some(1.5), "| start | ≤ 2 x floor | 2.00 x (3.00 ms against 1.50 ms) | yes |");
        check(
            1.0,
            Some(0.05),
            Some(0.04),
            "| start | no slower than floor | 1.25 x (50.0 µs against 40.0 µs) | no: 10.0 µs too long |",
        );
        check(2.0, Some(3.0), None, "| start | ≤ 2 x floor | floor did not run | not measured |");
    }
}
