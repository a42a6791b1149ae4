use std::time::{Duration, Instant};

use anyhow::Result;
use garth_spec::Runtime;
use serde::Serialize;

use crate::daemon::{Daemon, Traces};
use crate::garth::Garth;

/// Create, start, run, remove, again and again.
#[derive(Debug, Clone, Serialize)]
pub struct Cycles {
    pub runtime: Runtime,
    pub count: usize,
    pub seconds: f64,
    pub before: Traces,
    pub after: Traces,
}

/// So long may the kernel and the daemon take for what they do after the last answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn measure(garth: &Garth, daemon: &Daemon, count: usize) -> Result<Cycles> {
    const INDEX: usize = 100_000;
    for _ in 0..8 {
        cycle(garth, INDEX).await?;
    }
    let before = settled(daemon, |_| false)?;
    let begin = Instant::now();
    for _ in 0..count {
        cycle(garth, INDEX).await?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let after = settled(daemon, |now| *now == before)?;
    Ok(Cycles { runtime: garth.runtime(), count, seconds, before, after })
}

async fn cycle(garth: &Garth, index: usize) -> Result<()> {
    garth.create(index).await?;
    garth.start(index).await?;
    garth.exec(index, &["/bin/true"]).await?;
    garth.remove(index).await
}

/// The traces once they are as wanted, or else once they have stayed the same for three seconds.
fn settled(daemon: &Daemon, wanted: impl Fn(&Traces) -> bool) -> Result<Traces> {
    let begin = Instant::now();
    let (mut last, mut since) = (daemon.traces()?, Instant::now());
    while !wanted(&last) && since.elapsed() < Duration::from_secs(3) && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
        let now = daemon.traces()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}

impl Cycles {
    /// What there is more of than before, by name.
    pub fn left(&self) -> Vec<String> {
        let (before, after) = (self.before.named(), self.after.named());
        let pairs = before.into_iter().zip(after).filter(|((_, before), (_, after))| after > before);
        pairs.map(|((name, before), (_, after))| format!("{} {name}", after - before)).collect()
    }
}

impl Traces {
    pub fn named(&self) -> [(&'static str, usize); 7] {
        [
            ("mounts", self.mounts),
            ("cgroups", self.cgroups),
            ("loop devices", self.loop_devices),
            ("network links", self.links),
            ("processes", self.processes),
            ("descriptors", self.descriptors),
            ("files", self.files),
        ]
    }
}
