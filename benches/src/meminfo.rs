use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::garth::Garth;
use crate::lxcfs::Lxcfs;
use crate::peers::{Container, MEMORY, Peer};
use crate::rootfs::PROBE;
use crate::stats::Samples;
use crate::subject::order;

/// Names of what is compared: files in a container of a peer's.
pub const KERNEL: &str = "kernel";
pub const LXCFS: &str = "lxcfs";

/// The file that is read.
const FILE: &str = "/proc/meminfo";

/// Reads in one turn.
const READS: usize = 200;

/// The first of them fill caches, for everyone.
const WARM_UP: usize = READS / 10;

/// Who reads where.
enum Reader<'a> {
    Container(&'static str, Container),
    Garth(&'a Garth),
}

/// Rounds in which each reads so many times, from within: the kernel's own file in a container, the same with lxcfs's
/// over it, and in ours.
pub async fn measure(
    peers: &[Peer],
    garths: &[&Garth],
    work: &Path,
    rounds: usize,
    notes: &mut Vec<String>,
) -> Result<Vec<Samples>> {
    let reads = READS.to_string();
    let argv = [PROBE, FILE, reads.as_str()];
    let container = |label: &str, mounts: &[_]| {
        let found = peers.iter().map(|peer| peer.container(label, &argv, mounts));
        found.filter_map(Result::transpose).next().transpose()
    };
    let mut readers: Vec<Reader<'_>> =
        container(KERNEL, &[])?.into_iter().map(|c| Reader::Container(KERNEL, c)).collect();
    let lxcfs = Lxcfs::mount(&work.join("lxcfs"));
    match &lxcfs {
        Ok(lxcfs) => {
            let over = json!({"destination": FILE, "type": "bind", "source": lxcfs.file(FILE), "options": ["bind"]});
            let reader = container(LXCFS, &[over])?.map(|c| Reader::Container(LXCFS, c));
            // Proof that it is lxcfs's file: it shows the container's limit.
            let shown = match &reader {
                Some(reader) => reader.read(&argv).await.map(|(total, _)| total),
                None => Err(anyhow::anyhow!("no runtime to show it in")),
            };
            match shown {
                Ok(total) if total == MEMORY >> 10 => readers.extend(reader),
                Ok(total) => notes.push(format!("lxcfs shows {total} KiB where the limit is {} KiB", MEMORY >> 10)),
                Err(error) => notes.push(format!("lxcfs does not run here: {error:#}")),
            }
        }
        Err(error) => notes.push(format!("lxcfs does not run here: {error:#}")),
    }
    for garth in garths {
        garth.keep_running().await?;
        readers.push(Reader::Garth(garth));
    }
    let mut samples: Vec<Samples> = readers.iter().map(|reader| Samples::new(reader.name(), 1)).collect();
    for round in 0..=rounds {
        for index in order(round, readers.len()) {
            let (_, times) =
                readers[index].read(&argv).await.with_context(|| format!("in {}", readers[index].name()))?;
            ensure!(times.len() == READS, "the probe read {} times", times.len());
            samples[index].extend_unless_warm_up(round, times.into_iter().skip(WARM_UP).collect());
        }
    }
    Ok(samples)
}

impl Reader<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Container(name, _) => name,
            Self::Garth(garth) => garth.name(),
        }
    }

    /// The total that the file shows, in KiB, and the times.
    async fn read(&self, argv: &[&str]) -> Result<(u64, Vec<Duration>)> {
        let text = match self {
            Self::Container(_, container) => container.output()?,
            Self::Garth(garth) => garth.text(&garth.project(0)?, argv).await?,
        };
        let mut lines = text.lines();
        let total = lines.next().and_then(|line| line.strip_prefix("total ")).context("the probe says no total")?;
        let times = lines.map(|line| Ok(Duration::from_nanos(line.parse()?))).collect::<Result<Vec<_>>>()?;
        Ok((total.parse()?, times))
    }
}
