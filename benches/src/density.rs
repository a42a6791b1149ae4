use anyhow::Result;
use serde::Serialize;

use crate::garth::Garth;

/// What one idle sandbox costs when so many run.
#[derive(Debug, Clone, Serialize)]
pub struct Density {
    pub sandboxes: usize,
    /// Proportional set size of every Garth process but the daemon's first sandbox-less state, per sandbox, in KiB.
    pub pss_kib_each: f64,
    /// Milliseconds that the last tenth of the starts took, over the first tenth.
    pub slowdown: f64,
}

pub async fn measure(garth: &Garth, counts: &[usize]) -> Result<Vec<Density>> {
    let mut all = Vec::new();
    for &count in counts {
        garth.prepare(count).await?;
        for index in 0..count {
            garth.stop(index).await?;
        }
        let before = pss_kib()?;
        let mut times = Vec::new();
        for index in 0..count {
            let begin = std::time::Instant::now();
            garth.start(index).await?;
            garth.exec(index, &["/bin/true"]).await?;
            times.push(begin.elapsed().as_secs_f64());
        }
        let after = pss_kib()?;
        let tenth = (count / 10).max(1);
        let slowdown = times[count - tenth..].iter().sum::<f64>() / times[..tenth].iter().sum::<f64>();
        all.push(Density { sandboxes: count, pss_kib_each: (after - before) / count as f64, slowdown });
        for index in 0..count {
            garth.stop(index).await?;
        }
    }
    Ok(all)
}

/// The PSS of the daemon, the spawners and the agents together: everything whose program is ours.
fn pss_kib() -> Result<f64> {
    let mut sum = 0.0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(exe) = std::fs::read_link(entry.path().join("exe")) else { continue };
        let exe = exe.to_string_lossy();
        if !(exe.contains("garth-agent") || exe.ends_with("/garth")) {
            continue;
        }
        let rollup = std::fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        sum += pss.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(sum)
}
