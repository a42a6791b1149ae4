//! Sandboxes with a kernel of their own, beside QEMU with the same kernel and nothing else in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use garth_api::{CreateProject, StopRequest};
use garth_kernel::tsc;
use garth_spec::{Accelerator, ByteSize, Limits, Network, ProjectName, ProjectSpec, Runtime};

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

/// Where a daemon keeps what guests boot from.
const GUEST: &str = "/var/cache/garth/guest/current";
/// Of guests that go on from one template, and of QEMU alone.
const MEMORY_MIB: u32 = 256;
/// What a template may take to be made.
const PATIENCE: Duration = Duration::from_secs(120);

/// So many rounds after one that is not counted, in each of which everyone has a turn.
pub async fn measure(garth: &Garth, work: &Path, rounds: usize) -> Result<Vec<Samples>> {
    let others = machines()?;
    let (lasting, warm) =
        (Machine::new(garth, "lasting", MEMORY_MIB).await?, Machine::new(garth, "warm", MEMORY_MIB).await?);
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
                    let booted = Machine::new(garth, "booted", MEMORY_MIB + 1 + u32::try_from(round)?).await?;
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
struct Machine<'a> {
    garth: &'a Garth,
    name: ProjectName,
}

impl<'a> Machine<'a> {
    async fn new(garth: &'a Garth, name: &str, memory_mib: u32) -> Result<Self> {
        let spec = ProjectSpec {
            image: garth.image().clone(),
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

    async fn run_true(&self) -> Result<()> {
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

    async fn accelerator(&self) -> Result<Accelerator> {
        let project = self.garth.client().project(&self.name).await?;
        project.runtime.accelerator.context("a machine says what runs it")
    }

    async fn remove(&self) -> Result<()> {
        Ok(self.garth.client().remove(&self.name).await?)
    }
}

/// QEMU, told what Garth tells it of the machine, and of no device but a console.
struct Bare {
    initrd: PathBuf,
    accelerator: Accelerator,
}

impl Bare {
    fn new(work: &Path, accelerator: Accelerator) -> Result<Self> {
        let initrd = work.join("busybox.cpio");
        let script = "set -e; mkdir -p root/bin; cp /bin/busybox root/bin; cd root
            printf '#!/bin/busybox sh\\n/bin/busybox poweroff -f\\n' > init; chmod 755 init
            find . | busybox cpio -o -H newc > \"$1\"";
        let made = Command::new("sh").args(["-c", script, "sh"]).arg(&initrd).current_dir(work).output()?;
        ensure!(made.status.success(), "busybox makes no initramfs: {}", String::from_utf8_lossy(&made.stderr));
        Ok(Self { initrd, accelerator })
    }

    fn life(&self) -> Result<Duration> {
        let mut append = "console=ttyS0 quiet reboot=t panic=-1 i8042.noaux i8042.nokbd 8250.nr_uarts=1".to_owned();
        let accelerator = match self.accelerator {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accelerator::Tcg => {
                let khz = tsc::khz();
                append += &format!(" mitigations=off no_timer_check tsc=reliable tsc_early_khz={khz} lpj={}", khz * 4);
                ["-accel", "tcg,thread=single", "-cpu", "max"]
            }
        };
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
        qemu.args(["-machine", "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on,usb=off"]).args(accelerator);
        qemu.args(["-m", &format!("{MEMORY_MIB}M"), "-smp", "2", "-append", &append]);
        qemu.arg("-kernel").arg(Path::new(GUEST).join("vmlinux")).arg("-initrd").arg(&self.initrd);
        let begin = Instant::now();
        let ended = qemu.stdin(Stdio::null()).stdout(Stdio::null()).status().context("qemu-system-x86_64")?;
        ensure!(ended.success(), "QEMU alone ended with {ended}");
        Ok(begin.elapsed())
    }
}

/// Until no template is being made.
async fn until_settled(count: usize) -> Result<()> {
    let begin = Instant::now();
    while machines()? > count {
        ensure!(begin.elapsed() < PATIENCE, "a template takes longer than {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// How many QEMUs there are.
fn machines() -> Result<usize> {
    let is_qemu = |entry: &std::fs::DirEntry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with("qemu-system"))
    };
    Ok(std::fs::read_dir("/proc")?.flatten().filter(is_qemu).count())
}
