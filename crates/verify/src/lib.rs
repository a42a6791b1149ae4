//! Whether a sandbox's boundary holds: tried from inside, looked at from outside, judged here.
//!
//! ```text
//! checks (per level) ── tries ──> agent ──> an ordinary process in the sandbox
//!        │                                        │ what came of each
//!        └── judge <── facts (from outside) + that ──> Verification
//! ```
//!
//! Each engine lists its levels' checks and gathers its own facts. What is here is the same for all: how a list becomes an
//! outcome, and how the common tries are judged. What comes out of the sandbox is not trusted: it is bounded, escaped, and
//! what it leaves out counts as a failure. Whoever owns the sandbox can still make its own process lie; so where something can
//! be seen from outside, it is not asked. No I/O.
#![forbid(unsafe_code)]

pub mod judge;
pub mod tries;

use garth_spec::{Handler, Observed, ProbeReport, ProbeRequest, Runtime, Try};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The outcome of one run of all checks of a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// The level that was checked: the running sandbox's.
    pub runtime: Runtime,
    /// What carries it out; none where a cluster's own default runtime does.
    pub handler: Option<Handler>,
    /// When.
    pub at: Timestamp,
    /// Each check, in the order of the list.
    pub checks: Vec<Checked>,
}

/// One check that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its name; stable.
    pub id: &'static str,
    /// What has to be so.
    pub what: &'static str,
    /// Whether it is.
    pub passed: bool,
    /// What was seen: one line, bounded, without control characters.
    pub evidence: String,
}

/// What is kept of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// When.
    pub at: Timestamp,
    /// The level that was checked.
    pub runtime: Runtime,
    /// How many checks were made.
    pub checks: usize,
    /// The names of those that failed.
    pub failed: Vec<String>,
}

impl Verification {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// What is kept of it.
    pub fn summary(&self) -> Verified {
        let failed = self.checks.iter().filter(|check| !check.passed).map(|check| check.id.to_owned());
        Verified { at: self.at, runtime: self.runtime, checks: self.checks.len(), failed: failed.collect() }
    }
}

/// What was seen, either way.
pub type Verdict = Result<String, String>;

/// Who judges one check.
pub type Judge<F> = fn(&Evidence<'_, F>) -> Verdict;

/// One check. `F` are the facts from outside that it is judged by, beside what was tried.
#[derive(Debug, Clone)]
pub struct Check<F> {
    /// Its name; stable.
    pub id: &'static str,
    /// What has to be so.
    pub what: &'static str,
    /// None where it is seen from outside.
    pub tries: Vec<Try>,
    /// Who judges.
    pub judge: Judge<F>,
}

/// What a check is judged by.
#[derive(Debug)]
pub struct Evidence<'a, F> {
    /// What was seen from outside.
    pub facts: &'a F,
    /// The check's own tries, with what came of each.
    pub tried: &'a [(Try, Observed)],
}

/// One check, in one line.
pub fn check<F>(id: &'static str, what: &'static str, tries: Vec<Try>, judge: Judge<F>) -> Check<F> {
    Check { id, what, tries, judge }
}

/// What the agent is asked for these checks.
pub fn question<F>(checks: &[Check<F>]) -> ProbeRequest {
    ProbeRequest { tries: checks.iter().flat_map(|check| check.tries.iter().cloned()).collect() }
}

/// Hands each check what came of its own tries. A report that is too short leaves the last ones with none.
pub fn judged<F>(checks: &[Check<F>], report: ProbeReport, facts: &F) -> Vec<Checked> {
    let mut observed = report.observed.into_iter();
    let judged = checks.iter().map(|check| {
        let tried: Vec<_> = check.tries.iter().cloned().zip(observed.by_ref().take(check.tries.len())).collect();
        let verdict = match tried.len() == check.tries.len() {
            true => (check.judge)(&Evidence { facts, tried: &tried }),
            false => Err("the sandbox did not say what came of it".to_owned()),
        };
        let passed = verdict.is_ok();
        let (Ok(evidence) | Err(evidence)) = verdict;
        Checked { id: check.id, what: check.what, passed, evidence: judge::printable(&evidence) }
    });
    judged.collect()
}
