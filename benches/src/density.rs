use std::time::{Duration, Instant};

use anyhow::Result;
use garth_spec::Runtime;
use serde::Serialize;

use crate::daemon::{Daemon, Pss};
use crate::garth::Garth;

/// What one idle sandbox costs when so many run.
#[derive(Debug, Clone, Serialize)]
pub struct Density {
    pub runtime: Runtime,
    pub sandboxes: usize,
    /// Of one sandbox, in KiB; of the daemon, what it grew by.
    pub pss_kib: Pss,
    /// What the machine had less of afterwards, per sandbox, in KiB: with the kernel's part, and with whatever else
    /// happened on the machine, which drowns it when there are few.
    pub available_kib: Option<f64>,
    /// Milliseconds that the last tenth of the starts took, over the first tenth.
    pub slowdown: f64,
}

impl Pss {
    pub fn sum(&self) -> f64 {
        self.agents + self.keepers + self.spawners + self.daemon
    }

    fn over(self, count: f64) -> Self {
        let Self { agents, keepers, spawners, daemon } = self;
        Self { agents: agents / count, keepers: keepers / count, spawners: spawners / count, daemon: daemon / count }
    }
}

pub async fn measure(garth: &Garth, daemon: &Daemon, counts: &[usize]) -> Result<Vec<Density>> {
    let mut all = Vec::new();
    for &count in counts {
        garth.prepare(count).await?;
        stop(garth, count).await?;
        // Namespaces of what ran before are taken apart after their last process has ended.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (before, available) = (daemon.pss(&[])?, available_kib()?);
        let (mut times, mut inits) = (Vec::new(), Vec::new());
        for index in 0..count {
            let begin = Instant::now();
            garth.start(index).await?;
            garth.exec(index, &["/bin/true"]).await?;
            times.push(begin.elapsed().as_secs_f64());
        }
        for index in 0..count {
            inits.push(garth.init(index).await?);
        }
        let mut pss = daemon.pss(&inits)?;
        let taken = available - available_kib()?;
        let available_kib = (count >= 100).then_some(taken / count as f64);
        pss.daemon = (pss.daemon - before.daemon).max(0.0);
        let tenth = (count / 10).max(1);
        let slowdown = times[count - tenth..].iter().sum::<f64>() / times[..tenth].iter().sum::<f64>();
        let pss_kib = pss.over(count as f64);
        all.push(Density { runtime: garth.runtime(), sandboxes: count, pss_kib, available_kib, slowdown });
        stop(garth, count).await?;
    }
    Ok(all)
}

async fn stop(garth: &Garth, count: usize) -> Result<()> {
    for index in 0..count {
        garth.stop(index).await?;
    }
    Ok(())
}

fn available_kib() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    Ok(line.map(|line| line.trim().trim_end_matches(" kB").parse()).transpose()?.unwrap_or(0.0))
}
