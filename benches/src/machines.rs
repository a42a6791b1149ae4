//! Sandboxes with a kernel of their own, beside QEMU with the same kernel and nothing else in it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use garth_api::{CreateProject, StopRequest};
use garth_spec::{Accelerator, ByteSize, ImageName, Limits, Network, ProjectName, ProjectSpec, Runtime};

use crate::bare::{Bare, MEMORY_MIB};
use crate::garth::Garth;
use crate::stats::Samples;
use crate::subject::order;

/// From the program's start to its end: a kernel whose init switches off at once.
pub const QEMU: &str = "qemu alone";
/// Start, `true`, stop.
pub const BOOTED: &str = "garth microvm, booted";
/// The same, from a template.
pub const WARM: &str = "garth microvm, from a template";
/// `true` in one that is paused: resume, and the command.
const RESUMED: &str = "garth microvm, resumed";
/// `true` in one that runs.
const RUNNING: &str = "garth microvm, running";

const ALL: [&str; 5] = [QEMU, BOOTED, WARM, RESUMED, RUNNING];

/// What a template may take to be made.
const PATIENCE: Duration = Duration::from_secs(120);

/// So many rounds after one that is not counted, in each of which everyone has a turn.
pub async fn measure(garth: &Garth, work: &Path, rounds: usize) -> Result<Vec<Samples>> {
    let others = machines()?;
    let machine = |name, memory_mib| Machine::new(garth, name, garth.image(), memory_mib);
    let (lasting, warm) = (machine("lasting", MEMORY_MIB).await?, machine("warm", MEMORY_MIB).await?);
    lasting.run_true().await?;
    let bare = Bare::new(work, lasting.accelerator().await?)?;
    until_settled(others + 1).await?;
    let mut samples = ALL.map(|name| Samples::new(name, 1));
    for round in 0..=rounds {
        for index in order(round, ALL.len()) {
            let time = match ALL[index] {
                QEMU => bare.life()?,
                // No other is of this shape: there is no template, and one is made afterwards.
                BOOTED => {
                    let booted = machine("booted", MEMORY_MIB + 1 + u32::try_from(round)?).await?;
                    let time = booted.life().await?;
                    booted.remove().await?;
                    until_settled(others + 1).await?;
                    time
                }
                WARM => warm.life().await?,
                RESUMED => {
                    lasting.pause().await?;
                    lasting.timed_true().await?
                }
                _ => lasting.timed_true().await?,
            };
            samples[index].extend_unless_warm_up(round, vec![time]);
        }
    }
    lasting.remove().await?;
    warm.remove().await?;
    Ok(samples.into())
}

/// A project with a kernel of its own.
pub struct Machine<'a> {
    garth: &'a Garth,
    pub name: ProjectName,
}

impl<'a> Machine<'a> {
    pub async fn new(garth: &'a Garth, name: &str, image: &ImageName, memory_mib: u32) -> Result<Self> {
        let spec = ProjectSpec {
            image: image.clone(),
            runtime: Runtime::Microvm.into(),
            network: Network::None,
            limits: Limits { memory: ByteSize::mib(memory_mib), ..Limits::default() },
            ..ProjectSpec::default()
        };
        let name: ProjectName = format!("bench-machine-{name}").parse()?;
        let create = CreateProject { name: Some(name.clone()), ephemeral: false, spec: spec.into() };
        garth.client().create(&create).await?;
        Ok(Self { garth, name })
    }

    pub async fn run_true(&self) -> Result<()> {
        self.garth.output(&self.name, &["/bin/true"]).await.map(drop)
    }

    async fn timed_true(&self) -> Result<Duration> {
        let begin = Instant::now();
        self.run_true().await?;
        Ok(begin.elapsed())
    }

    async fn life(&self) -> Result<Duration> {
        let begin = Instant::now();
        self.run_true().await?;
        self.garth.client().stop(&self.name, &StopRequest { grace_ms: Some(0) }).await?;
        Ok(begin.elapsed())
    }

    async fn pause(&self) -> Result<()> {
        self.garth.client().pause(&self.name).await?;
        Ok(())
    }

    pub async fn accelerator(&self) -> Result<Accelerator> {
        let project = self.garth.client().project(&self.name).await?;
        project.runtime.accelerator.context("a machine says what runs it")
    }

    pub async fn remove(&self) -> Result<()> {
        Ok(self.garth.client().remove(&self.name).await?)
    }
}

/// Until no template is being made.
pub async fn until_settled(count: usize) -> Result<()> {
    let begin = Instant::now();
    while machines()? > count {
        ensure!(begin.elapsed() < PATIENCE, "a template takes longer than {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// How many QEMUs there are.
pub fn machines() -> Result<usize> {
    let is_qemu = |entry: &std::fs::DirEntry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with("qemu-system"))
    };
    Ok(std::fs::read_dir("/proc")?.flatten().filter(is_qemu).count())
}
