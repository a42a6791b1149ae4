//! What users rely on, tried through the same commands and HTTP requests on one machine and on a cluster: docs/conformance.md
//! is the table of what came of it. Needs root, and a cluster (`tests/cluster/build`).
//!
//! What the table says passes must pass; what begins to pass must be written down:
//! `GARTH_REGENERATE=1 cargo test -p garth --test conformance`. `GARTH_CHECKS=pause,cp` tries only these.

#[path = "../support/yard.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod yard;

#[path = "../cluster/stage.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod stage;

#[path = "../support/terminal.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod screen;

#[path = "../support/promises.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod promises;

mod access;
mod changes;
mod endpoint;
mod files;
mod lives;
mod options;
mod processes;
mod projects;
mod table;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use endpoint::{Check, Endpoint, Outcome};

const GROUPS: [&[Check]; 6] =
    [projects::CHECKS, processes::CHECKS, files::CHECKS, changes::CHECKS, options::CHECKS, access::CHECKS];

#[test]
fn both_engines_do_what_the_table_says() {
    let Some(stage) = stage::Stage::open("both_engines_do_what_the_table_says") else { return };
    let wanted = std::env::var("GARTH_CHECKS").ok();
    let is_wanted = |check: &Check| wanted.as_ref().is_none_or(|words| words.split(',').any(|word| word == check.word));
    let checks: Vec<Check> = GROUPS.concat().into_iter().filter(is_wanted).collect();
    let local = Endpoint::local(stage.lab);
    let cluster = Endpoint::cluster(stage);
    let (local, cluster) = std::thread::scope(|scope| {
        let local = scope.spawn(|| try_all(&checks, &local, 1));
        // A Pod takes its time and little else.
        let cluster = try_all(&checks, &cluster, 4);
        (local.join().expect("the local engine's checks"), cluster)
    });
    let rows: Vec<_> =
        checks.iter().zip(local).zip(cluster).map(|((check, local), cluster)| (*check, local, cluster)).collect();
    match wanted {
        None => table::compare(&rows),
        Some(_) => eprintln!("{}", table::rows(&rows)),
    }
}

/// What comes of each check, several of them at a time.
fn try_all(checks: &[Check], endpoint: &Endpoint, at_once: usize) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(check) = checks.get(number) else { return done };
            done.push((number, try_one(check, endpoint)));
        }
    };
    let mut outcomes = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect::<Vec<_>>()
    });
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn try_one(check: &Check, endpoint: &Endpoint) -> Outcome {
    let began = Instant::now();
    let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (check.by)(endpoint)));
    let outcome = match tried {
        Ok(Ok(())) => Outcome::Pass,
        Ok(Err(other)) => other,
        Err(_) => Outcome::Fail,
    };
    eprintln!("{} {}: {outcome:?} ({} ms)", endpoint.engine, check.what, began.elapsed().as_millis());
    outcome
}
