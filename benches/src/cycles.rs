use std::time::Instant;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::garth::Garth;

/// Create, start, run, remove, again and again.
#[derive(Debug, Clone, Serialize)]
pub struct Cycles {
    pub count: usize,
    pub seconds: f64,
    /// What there was before and after: mounts, cgroups, loop devices, network links, descriptors of this process's daemon.
    pub before: Traces,
    pub after: Traces,
}

/// Things that a leak would add to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Traces {
    pub mounts: usize,
    pub cgroups: usize,
    pub loop_devices: usize,
    pub links: usize,
}

pub async fn measure(garth: &Garth, count: usize) -> Result<Cycles> {
    const INDEX: usize = 100_000;
    for _ in 0..8 {
        cycle(garth, INDEX).await?;
    }
    let before = traces()?;
    let begin = Instant::now();
    for _ in 0..count {
        cycle(garth, INDEX).await?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let after = settled(&before)?;
    ensure!(after == before, "{count} cycles left something: {before:?} became {after:?}");
    Ok(Cycles { count, seconds, before, after })
}

async fn cycle(garth: &Garth, index: usize) -> Result<()> {
    garth.create(index).await?;
    garth.start(index).await?;
    garth.exec(index, &["/bin/true"]).await?;
    garth.remove(index).await
}

/// The kernel tears namespaces down after the last process is gone; give it a bounded time.
fn settled(baseline: &Traces) -> Result<Traces> {
    let begin = Instant::now();
    loop {
        let now = traces()?;
        if &now == baseline || begin.elapsed().as_secs() > 20 {
            return Ok(now);
        }
        std::thread::yield_now();
    }
}

fn traces() -> Result<Traces> {
    let lines = |path: &str| -> Result<usize> { Ok(std::fs::read_to_string(path)?.lines().count()) };
    let loops = std::fs::read_dir("/sys/block")?.flatten().filter(|e| e.path().join("loop/backing_file").exists());
    let cgroups = std::fs::read_to_string("/proc/cgroups")?;
    let cgroups = cgroups.lines().filter_map(|l| l.split_whitespace().nth(2)?.parse::<usize>().ok()).sum();
    Ok(Traces {
        mounts: lines("/proc/self/mountinfo")?,
        cgroups,
        loop_devices: loops.count(),
        links: std::fs::read_dir("/sys/class/net")?.count(),
    })
}
