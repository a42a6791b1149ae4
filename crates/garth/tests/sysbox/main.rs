//! What Sysbox promises, tried in real `--runtime sysbox` sandboxes: 70 checks, each a function, whose results are the
//! table of docs/sysbox.md. Needs root.
//!
//! A check that the table says passes must pass; one that begins to pass must be written down:
//! `GARTH_REGENERATE=1 cargo test -p garth --test sysbox`. `GARTH_CHECKS=29,33` tries only these.

#[path = "../support/yard.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod yard;

mod devices;
mod identity;
mod mounts;
mod proc_sys;
mod rootfs;
mod stage;
mod table;
mod workloads;

use std::collections::BTreeMap;

use stage::{Check, Checked, Stage};

#[test]
fn every_check_does_what_the_table_says() {
    let doctor = yard::Yard::new().garth(&["doctor"]).text();
    let level: Vec<&str> = doctor.lines().skip_while(|line| !line.starts_with("runtime sysbox")).collect();
    if !level.first().is_some_and(|line| line.ends_with(": works")) {
        let missing = level.iter().find(|line| line.trim_start().starts_with("no ")).unwrap_or(&"garth doctor");
        yard::skip("every_check_does_what_the_table_says", missing.trim());
        return;
    }
    let wanted: Option<Vec<u8>> = std::env::var("GARTH_CHECKS")
        .ok()
        .map(|list| list.split(',').map(|number| number.parse().expect("a number")).collect());
    let stage = Stage::new();
    let groups: [&'static [Check]; 5] =
        [identity::CHECKS, proc_sys::CHECKS, mounts::CHECKS, devices::CHECKS, workloads::CHECKS];
    let is_wanted = |check: &&Check| wanted.as_ref().is_none_or(|numbers| numbers.contains(&check.number));
    let run = |part: &[&'static [Check]]| -> Vec<(u8, (&'static str, Checked))> {
        let checks = part.iter().flat_map(|checks| checks.iter()).filter(is_wanted);
        checks.map(|check| (check.number, (check.what, try_one(check, &stage)))).collect()
    };
    let results: BTreeMap<u8, (&str, Checked)> = std::thread::scope(|scope| {
        // The last of the groups takes as long as all others.
        let first = scope.spawn(|| run(&groups[..4]));
        let mut results = run(&groups[4..]);
        results.extend(first.join().expect("a thread of checks"));
        results.into_iter().collect()
    });
    drop(stage);
    match wanted {
        None => table::compare(&results),
        Some(_) => eprintln!("{}", table::rows(&results)),
    }
}

fn try_one(check: &'static Check, stage: &Stage) -> Checked {
    let start = std::time::Instant::now();
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (check.by)(stage)))
        .unwrap_or_else(|_| stage::fail("the check broke off"));
    eprintln!("{:2} {} ({} ms)", check.number, table::words(&checked), start.elapsed().as_millis());
    checked
}
