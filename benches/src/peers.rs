use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// What Garth is measured against.
#[derive(Debug)]
pub enum Peer {
    /// clone3 with every namespace, pivot_root, exec: no cgroup, no filter, no /proc. Nothing that isolates is faster.
    Floor { rootfs: PathBuf },
    /// bubblewrap.
    Bwrap { rootfs: PathBuf },
    /// A runtime with runc's command line.
    Oci { name: &'static str, program: Vec<String>, bundle: PathBuf },
}

impl Peer {
    /// The floor and every peer that is installed; those that are not are named on standard error.
    pub fn all(work: &Path, rootfs: &Path) -> Result<Vec<Self>> {
        let mut peers = vec![Self::Floor { rootfs: rootfs.to_owned() }];
        if installed("bwrap") {
            peers.push(Self::Bwrap { rootfs: rootfs.to_owned() });
        }
        let state = |name: &str| format!("--root={}", work.join(format!("{name}-state")).display());
        let runsc_flags = ["--network=none", "--ignore-cgroups"];
        for (name, flags) in [("crun", &[][..]), ("runc", &[][..]), ("runsc", &runsc_flags[..])] {
            if !installed(name) {
                continue;
            }
            let program =
                [name.to_owned(), state(name)].into_iter().chain(flags.iter().map(ToString::to_string)).collect();
            let peer = Self::Oci { name, program, bundle: bundle(work, name, rootfs)? };
            match peer.start_true_stop(1, 0) {
                Ok(_) => peers.push(peer),
                Err(error) => eprintln!("SKIP {name}: it does not run here: {error:#}"),
            }
        }
        Ok(peers)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Floor { .. } => "floor",
            Self::Bwrap { .. } => "bwrap",
            Self::Oci { name, .. } => name,
        }
    }

    /// One whole life of a sandbox that runs `true`, so many at once.
    pub fn start_true_stop(&self, at_once: usize, round: usize) -> Result<Vec<Duration>> {
        in_parallel(at_once, |index| match self {
            Self::Floor { rootfs } => floor(rootfs),
            Self::Bwrap { rootfs } => timed(&mut bwrap(rootfs)),
            Self::Oci { program, bundle, .. } => {
                let id = format!("b{}-{round}-{index}", std::process::id());
                timed(oci(program).arg("run").arg("--bundle").arg(bundle).arg(id))
            }
        })
    }

    /// A sandbox to run `true` in again and again; none for what has no such thing.
    pub fn keep_running(&self) -> Result<Option<Running>> {
        match self {
            Self::Floor { .. } => Ok(Some(Running { name: "floor", kind: RunningKind::ForkExec })),
            Self::Bwrap { .. } => Ok(None),
            Self::Oci { name, program, bundle } => {
                let id = format!("keep{}", std::process::id());
                let keeper = bundle.with_extension("keep");
                copy_bundle(bundle, &keeper, &["/bin/sleep", "100000"])?;
                let mut run = oci(program);
                let child = run.arg("run").arg("--bundle").arg(&keeper).arg(&id).spawn().context("spawn")?;
                let running = Running { name, kind: RunningKind::Oci { program: program.clone(), id, child } };
                running.until_it_answers()?;
                Ok(Some(running))
            }
        }
    }
}

/// A sandbox of a peer that stays.
#[derive(Debug)]
pub struct Running {
    name: &'static str,
    kind: RunningKind,
}

#[derive(Debug)]
enum RunningKind {
    ForkExec,
    Oci { program: Vec<String>, id: String, child: Child },
}

impl Running {
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn exec_true(&self, at_once: usize) -> Result<Vec<Duration>> {
        in_parallel(at_once, |_| match &self.kind {
            RunningKind::ForkExec => timed(&mut Command::new("/usr/bin/true")),
            RunningKind::Oci { program, id, .. } => timed(oci(program).arg("exec").arg(id).arg("/bin/true")),
        })
    }

    fn until_it_answers(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            match self.exec_true(1) {
                Ok(_) => return Ok(()),
                Err(error) if begin.elapsed() > Duration::from_secs(20) => return Err(error),
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let RunningKind::Oci { program, id, child } = &mut self.kind {
            let _ = oci(program).args(["kill", id, "KILL"]).status();
            let _ = child.wait();
            let _ = oci(program).args(["delete", "-f", id]).status();
        }
    }
}

fn in_parallel(at_once: usize, one: impl Fn(usize) -> Result<Duration> + Sync) -> Result<Vec<Duration>> {
    if at_once == 1 {
        return Ok(vec![one(0)?]);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once)
            .map(|index| {
                scope.spawn({
                    let one = &one;
                    move || one(index)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a measuring thread does not panic")).collect()
    })
}

fn timed(command: &mut Command) -> Result<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    let took = begin.elapsed();
    ensure!(status.success(), "{command:?}: {status}");
    Ok(took)
}

fn floor(rootfs: &Path) -> Result<Duration> {
    let begin = Instant::now();
    garth_kernel::floor::run_true(rootfs).context("the kernel's floor")?;
    Ok(begin.elapsed())
}

fn bwrap(rootfs: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--bind"]).arg(rootfs).args(["/", "--proc", "/proc", "--dev", "/dev", "/bin/true"]);
    command
}

fn oci(program: &[String]) -> Command {
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command
}

fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIP {program}: not installed");
    }
    found
}

/// A bundle as `runc spec` makes it, with the limits that a Garth project has and no terminal.
fn bundle(work: &Path, name: &str, rootfs: &Path) -> Result<PathBuf> {
    let dir = work.join(format!("{name}.bundle"));
    std::fs::create_dir_all(&dir)?;
    let made = Command::new("runc").arg("spec").current_dir(&dir).status().context("runc spec makes the bundles")?;
    ensure!(made.success(), "runc spec failed");
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["root"] = json!({"path": rootfs, "readonly": false});
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/true"]);
    config["linux"]["resources"] = json!({
        "memory": {"limit": 2_147_483_648u64}, "pids": {"limit": 4096}, "cpu": {"quota": 200_000, "period": 100_000},
    });
    std::fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(dir)
}

fn copy_bundle(from: &Path, to: &Path, args: &[&str]) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let mut config: Value = serde_json::from_slice(&std::fs::read(from.join("config.json"))?)?;
    config["process"]["args"] = json!(args);
    std::fs::write(to.join("config.json"), serde_json::to_vec(&config)?)?;
    Ok(())
}
