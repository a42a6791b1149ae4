//! Guests from within, and what an idle one weighs, beside QEMU with the same kernel.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use garth_api::{Place, full_body};
use garth_spec::ProjectSpec;
use http::Request;
use serde::Serialize;

use crate::bare::{self, Bare, MEMORY_MIB, Shell};
use crate::daemon::{Daemon, pss_kib};
use crate::files::{self, Times};
use crate::garth::Garth;
use crate::machines::{BOOTED, Machine, QEMU, WARM, machines, until_settled};
use crate::stats::{Quantiles, Ratios};
use crate::subject::order;

/// A line to the bare guest's shell and one back; a request to Garth's agent and its answer.
pub const THERE_AND_BACK: &str = "there and back";
pub const TRUE: &str = "`true`";
const STREAM: usize = 32 << 20;
/// What each write of it carries, and who writes it.
const STREAMS: [(&str, &str); 2] = [
    ("32 MiB by writes of 4 KiB", "/usr/bin/head -c 32M /dev/zero"),
    ("32 MiB by writes of 64 KiB", "/usr/bin/dd bs=64k count=512 status=none if=/dev/zero"),
];
/// Of the short ones, in each round.
const SHORT: usize = 10;
/// Until an idle guest is idle.
const REST: Duration = Duration::from_secs(5);

/// The same in both.
#[derive(Debug, Serialize)]
pub struct Beside {
    pub what: String,
    pub bare: Quantiles,
    pub garth: Quantiles,
    pub to_bare: Ratios,
    pub samples: usize,
}

/// What one idle guest takes when so many run, in KiB of proportional set size.
#[derive(Debug, Serialize)]
pub struct Weight {
    pub subject: &'static str,
    pub guests: usize,
    /// Its own memory, as much of it as it has used.
    pub own_kib: f64,
    /// What its hypervisor has besides.
    pub qemu_kib: f64,
    /// Other processes beside it, and what the daemon grew by.
    pub others_kib: f64,
}

impl Weight {
    pub fn beyond_kib(&self) -> f64 {
        self.qemu_kib + self.others_kib
    }
}

/// Both guests have the machine's own /usr and an empty ext4 at /root.
pub async fn compare(garth: &Garth, work: &Path, rounds: usize) -> Result<Vec<Beside>> {
    let others = machines()?;
    let machine = Machine::new(garth, "compared", &ProjectSpec::default().image, MEMORY_MIB).await?;
    machine.run_true().await?;
    let mut shell = Bare::new(work, machine.accelerator().await?)?.shell_with_disks("compared")?;
    until_settled(others + 2).await?;
    let (mut bare, mut ours) = (Times::new(), Times::new());
    for round in 0..=rounds {
        for index in order(round, 2) {
            let (times, text) = match index {
                0 => (&mut bare, bare_turn(&mut shell)?),
                _ => (&mut ours, turn(garth, &machine).await?),
            };
            if round > 0 {
                files::add(times, &text);
            }
        }
    }
    machine.remove().await?;
    let rows = bare.into_iter().zip(ours).map(|((what, bare), (_, garth))| {
        let samples = bare.len();
        let (bare, garth) = (Quantiles::of(bare)?, Quantiles::of(garth)?);
        Some(Beside { what: what.replace('_', " "), bare, garth, to_bare: garth.over(bare), samples })
    });
    Ok(rows.flatten().collect())
}

fn bare_turn(shell: &mut Shell) -> Result<String> {
    let mut text = String::new();
    for (what, line) in [(THERE_AND_BACK, ":"), (TRUE, "/usr/bin/true")] {
        for _ in 0..SHORT {
            let begin = Instant::now();
            shell.run(line)?;
            text += &timed(what, begin);
        }
    }
    for (what, line) in STREAMS {
        let begin = Instant::now();
        let said = shell.run(line)?.len();
        ensure!(said == STREAM, "{line} wrote {said} bytes");
        text += &timed(what, begin);
    }
    Ok(text + &String::from_utf8(shell.run("python3 /work.py /root files")?)?)
}

async fn turn(garth: &Garth, machine: &Machine<'_>) -> Result<String> {
    let mut text = String::new();
    for _ in 0..SHORT {
        let begin = Instant::now();
        let answer = garth.client().agent(&machine.name, Request::get("/health").body(full_body(""))?).await?;
        ensure!(answer.status().is_success(), "the agent is not well: {}", answer.status());
        text += &timed(THERE_AND_BACK, begin);
    }
    for _ in 0..SHORT {
        let begin = Instant::now();
        machine.run_true().await?;
        text += &timed(TRUE, begin);
    }
    for (what, line) in STREAMS {
        let begin = Instant::now();
        exec(garth, machine, line)?;
        text += &timed(what, begin);
    }
    Ok(text + &garth.text(&machine.name, &["/usr/bin/python3", "-c", files::WORK, "/root", "files"]).await?)
}

/// As users do it: by the program.
fn exec(garth: &Garth, machine: &Machine<'_>, line: &str) -> Result<()> {
    let Place::Socket(socket) = garth.client().place() else { anyhow::bail!("the daemon is elsewhere") };
    let mut command = Command::new(std::env::current_exe()?.with_file_name("garth"));
    command.env("GARTH_DATA_DIR", socket.parent().context("a socket is in a directory")?);
    command.args(["exec", machine.name.as_str(), "--"]).args(line.split(' '));
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status().context("garth")?;
    ensure!(ended.success(), "garth exec ended with {ended}");
    Ok(())
}

fn timed(what: &str, begin: Instant) -> String {
    format!("{} {}\n", what.replace(' ', "_"), begin.elapsed().as_secs_f64() * 1e3)
}

/// So many at once of QEMU alone, booted, and from a template. Other guests on this machine share what they share.
pub async fn weigh(garth: &Garth, daemon: &Daemon, work: &Path, counts: &[usize]) -> Result<Vec<Weight>> {
    let others = machines()?;
    let first = Machine::new(garth, "first", garth.image(), MEMORY_MIB).await?;
    first.run_true().await?;
    let bare = Bare::new(work, first.accelerator().await?)?;
    until_settled(others + 1).await?;
    first.remove().await?;
    // Who holds this makes templates: a machine of a shape that has none boots.
    let templates = File::create(bare::cache().join("templates/lock"))?;
    templates.lock()?;
    let mut all = Vec::new();
    for &count in counts {
        all.push(weigh_bare(&bare, count)?);
        // A shape of which no template was ever made.
        all.push(weigh_ours(garth, daemon, BOOTED, count, MEMORY_MIB - 1).await?);
        all.push(weigh_ours(garth, daemon, WARM, count, MEMORY_MIB).await?);
    }
    Ok(all)
}

fn weigh_bare(bare: &Bare, count: usize) -> Result<Weight> {
    let mut guests = Vec::new();
    for index in 0..count {
        let mut shell = bare.shell(&format!("idle-{index}"))?;
        shell.run("/bin/busybox true")?;
        guests.push(shell);
    }
    std::thread::sleep(REST);
    let pids: Vec<u32> = guests.iter().map(Shell::pid).collect();
    weight(QEMU, &pids, MEMORY_MIB)
}

async fn weigh_ours(
    garth: &Garth,
    daemon: &Daemon,
    subject: &'static str,
    count: usize,
    memory_mib: u32,
) -> Result<Weight> {
    let before = daemon.pss(&[])?.daemon;
    let (mut guests, mut pids) = (Vec::new(), Vec::new());
    for index in 0..count {
        let machine = Machine::new(garth, &format!("idle-{index}"), garth.image(), memory_mib).await?;
        machine.run_true().await?;
        let pid = garth.client().project(&machine.name).await?.pid.context("the guest does not run")?;
        pids.push(u32::try_from(pid)?);
        guests.push(machine);
    }
    tokio::time::sleep(REST).await;
    let mut weight = weight(subject, &pids, memory_mib)?;
    let mut pss = daemon.pss(&pids)?;
    pss.daemon = (pss.daemon - before).max(0.0);
    weight.others_kib = pss.sum() / count as f64 - weight.own_kib - weight.qemu_kib;
    for machine in guests {
        machine.remove().await?;
    }
    Ok(weight)
}

/// Of these hypervisors alone.
fn weight(subject: &'static str, pids: &[u32], memory_mib: u32) -> Result<Weight> {
    let own = pids.iter().map(|pid| own_kib(*pid, memory_mib)).sum::<Result<f64>>()?;
    let qemus = pids.iter().map(|pid| pss_kib(*pid)).sum::<f64>();
    let count = pids.len() as f64;
    let (own_kib, qemu_kib) = (own / count, (qemus - own) / count);
    Ok(Weight { subject, guests: pids.len(), own_kib, qemu_kib, others_kib: 0.0 })
}

/// Of the guest's memory: the mapping of its size.
fn own_kib(qemu: u32, memory_mib: u32) -> Result<f64> {
    let smaps = std::fs::read_to_string(format!("/proc/{qemu}/smaps"))?;
    let size = format!("{} kB", memory_mib << 10);
    let mut fields = smaps.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(name, value)| *name == "Size" && value.trim() == size).context("QEMU maps no memory of that size")?;
    let (_, pss) = fields.find(|(name, _)| *name == "Pss").context("smaps has no Pss")?;
    Ok(pss.trim().trim_end_matches(" kB").parse()?)
}
