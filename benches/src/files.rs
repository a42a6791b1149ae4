use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use garth_api::CreateProject;
use garth_spec::{Network, ProjectName, ProjectSpec, Runtime};
use serde::Serialize;

use crate::garth::Garth;
use crate::stats::{Interval, median, median_with_interval};
use crate::subject::order;

/// One kind of work, in milliseconds: on the host, and in sandboxes of the image `host`, whose /usr is the host's.
#[derive(Debug, Clone, Serialize)]
pub struct Work {
    pub what: String,
    pub host_ms: f64,
    pub default_ms: f64,
    pub sysbox_ms: Option<f64>,
    /// Of the rounds' ratios sysbox / default.
    pub sysbox_to_default: Option<Interval>,
}

/// The same program runs everywhere; it prints `NAME MILLISECONDS` lines.
pub const WORK: &str = include_str!("work.py");

/// Rounds that the host takes part in: it is there for scale.
const HOST_ROUNDS: usize = 8;

/// Where the work is done.
enum Place<'a> {
    Host(&'a Path),
    Inside(&'a Garth, ProjectName),
}

/// The times of each kind of work in one place, in the order of the rounds.
pub type Times = Vec<(String, Vec<f64>)>;

pub async fn measure(garths: &[&Garth], work: &Path, rounds: usize) -> Result<Vec<Work>> {
    let mut places = vec![(None, Place::Host(work))];
    for garth in garths {
        let name: ProjectName = format!("bench-files-{}", garth.runtime()).parse()?;
        let spec = ProjectSpec { network: Network::None, runtime: garth.runtime().into(), ..ProjectSpec::default() };
        garth.client().create(&CreateProject { name: Some(name.clone()), ephemeral: false, spec: spec.into() }).await?;
        garth.client().start(&name).await?;
        places.push((Some(garth.runtime()), Place::Inside(garth, name)));
    }
    let mut all: Vec<Times> = places.iter().map(|_| Times::new()).collect();
    for round in 0..=rounds {
        for index in order(round, places.len()) {
            if round > HOST_ROUNDS && matches!(places[index].1, Place::Host(_)) {
                continue;
            }
            let text = places[index].1.run().await?;
            if round > 0 {
                add(&mut all[index], &text);
            }
        }
    }
    for (_, place) in &places {
        if let Place::Inside(garth, name) = place {
            garth.client().remove(name).await?;
        }
    }
    let of = |runtime| places.iter().position(|(r, _)| *r == runtime).map(|index| &all[index]);
    let (host, default, sysbox) = (of(None), of(Some(Runtime::Default)), of(Some(Runtime::Sysbox)));
    let times = |times: Option<&Times>, what: &str| -> Option<Vec<f64>> {
        times?.iter().find(|(name, _)| name == what).map(|(_, times)| times.clone())
    };
    let rows = host.into_iter().flatten().filter_map(|(what, host)| {
        let (default, sysbox) = (times(default, what)?, times(sysbox, what));
        let ratios = sysbox.as_ref().map(|sysbox| sysbox.iter().zip(&default).map(|(s, d)| s / d).collect());
        Some(Work {
            what: what.replace('_', " "),
            host_ms: median(host.clone()),
            default_ms: median(default),
            sysbox_ms: sysbox.map(median),
            sysbox_to_default: ratios.and_then(median_with_interval),
        })
    });
    Ok(rows.collect())
}

impl Place<'_> {
    async fn run(&self) -> Result<String> {
        const PYTHON: &str = "/usr/bin/python3";
        match self {
            Self::Host(work) => {
                let out = Command::new(PYTHON).args(["-c", WORK]).arg(work).output()?;
                ensure!(out.status.success(), "on the host: {}", String::from_utf8_lossy(&out.stderr));
                Ok(String::from_utf8(out.stdout)?)
            }
            Self::Inside(garth, name) => garth.text(name, &[PYTHON, "-c", WORK, "/root"]).await,
        }
    }
}

pub fn add(times: &mut Times, text: &str) {
    for (what, ms) in text.lines().filter_map(|line| line.rsplit_once(' ')) {
        let Ok(ms) = ms.parse() else { continue };
        match times.iter_mut().find(|(name, _)| name == what) {
            Some((_, all)) => all.push(ms),
            None => times.push((what.to_owned(), vec![ms])),
        }
    }
}
