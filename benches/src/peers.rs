use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use garth_kernel::floor::{self, Users};
use serde_json::{Value, json};

/// Names of subjects that others are compared with.
pub const FLOOR: &str = "floor";
pub const FLOOR_USERS: &str = "floor with users";
pub const BWRAP: &str = "bwrap";

/// What every container may use, in bytes: as a Garth project of default limits.
pub const MEMORY: u64 = 2 << 30;

/// What Garth is measured against.
#[derive(Debug)]
pub enum Peer {
    /// clone3 with every namespace but users' (or with it, and its maps), pivot_root, exec: no cgroup, no filter, no
    /// /proc. Nothing that isolates is faster.
    Floor { rootfs: PathBuf, users: Users },
    /// bubblewrap.
    Bwrap { rootfs: PathBuf },
    /// A runtime with runc's command line.
    Oci { name: &'static str, program: Vec<String>, bundle: PathBuf },
}

impl Peer {
    /// The floors and every peer that is installed and runs here; the others are noted.
    pub fn all(work: &Path, rootfs: &Path, notes: &mut Vec<String>) -> Result<Vec<Self>> {
        let floor = |users| Self::Floor { rootfs: rootfs.to_owned(), users };
        let mut peers = vec![floor(Users::Callers), floor(Users::Own)];
        if installed("bwrap", notes) {
            peers.push(Self::Bwrap { rootfs: rootfs.to_owned() });
        }
        let state = |name: &str| format!("--root={}", work.join(format!("{name}-state")).display());
        let runsc_flags = ["--network=none", "--ignore-cgroups"];
        for (name, flags) in [("crun", &[][..]), ("runc", &[][..]), ("runsc", &runsc_flags[..])] {
            if !installed(name, notes) {
                continue;
            }
            let program =
                [name.to_owned(), state(name)].into_iter().chain(flags.iter().map(ToString::to_string)).collect();
            let bundle = bundle(&work.join(format!("{name}.bundle")), rootfs, &["/bin/true"])?;
            let peer = Self::Oci { name, program, bundle };
            match peer.start_true_stop(1) {
                Ok(_) => peers.push(peer),
                Err(error) => notes.push(format!("{name} does not run here: {error:#}")),
            }
        }
        Ok(peers)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Floor { users: Users::Callers, .. } => FLOOR,
            Self::Floor { users: Users::Own, .. } => FLOOR_USERS,
            Self::Bwrap { .. } => BWRAP,
            Self::Oci { name, .. } => name,
        }
    }

    /// One whole life of a sandbox that runs `true`, so many at once.
    pub fn start_true_stop(&self, at_once: usize) -> Result<Vec<Duration>> {
        in_parallel(at_once, |_| match self {
            Self::Floor { rootfs, users } => bare(rootfs, *users),
            Self::Bwrap { rootfs } => timed(&mut bwrap(rootfs)),
            Self::Oci { program, bundle, .. } => {
                timed(oci(program).args(["run", "--bundle"]).arg(bundle).arg(new_id()))
            }
        })
    }

    /// A sandbox to run `true` in again and again; none for what has no such thing.
    pub fn keep_running(&self) -> Result<Option<Running>> {
        match self {
            Self::Floor { users: Users::Callers, .. } => Ok(Some(Running { name: FLOOR, kind: RunningKind::ForkExec })),
            Self::Floor { .. } | Self::Bwrap { .. } => Ok(None),
            Self::Oci { name, program, bundle } => {
                let id = new_id();
                let keeper = bundle.with_extension("keep");
                change(bundle, &keeper, |config| config["process"]["args"] = json!(["/bin/sleep", "100000"]))?;
                let mut run = oci(program);
                let child = run.args(["run", "--bundle"]).arg(&keeper).arg(&id).spawn().context("spawn")?;
                let running = Running { name, kind: RunningKind::Oci { program: program.clone(), id, child } };
                running.until_it_answers()?;
                Ok(Some(running))
            }
        }
    }

    /// A container that runs this command and has these mounts besides its own; none for what makes no containers.
    pub fn container(&self, label: &str, argv: &[&str], mounts: &[Value]) -> Result<Option<Container>> {
        let Self::Oci { program, bundle, .. } = self else { return Ok(None) };
        let own = bundle.with_extension(label);
        change(bundle, &own, |config| {
            config["process"]["args"] = json!(argv);
            config["mounts"].as_array_mut().into_iter().for_each(|all| all.extend_from_slice(mounts));
        })?;
        Ok(Some(Container { program: program.clone(), bundle: own }))
    }
}

/// What runs one command in a peer's container.
#[derive(Debug)]
pub struct Container {
    program: Vec<String>,
    bundle: PathBuf,
}

impl Container {
    /// Runs it; what it wrote.
    pub fn output(&self) -> Result<String> {
        let mut command = oci(&self.program);
        command.args(["run", "--bundle"]).arg(&self.bundle).arg(new_id()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let out = command.output()?;
        ensure!(out.status.success(), "{command:?}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8(out.stdout)?)
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

fn bare(rootfs: &Path, users: Users) -> Result<Duration> {
    let begin = Instant::now();
    floor::run_true(rootfs, users).context("the kernel's floor")?;
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

/// A container's id that this process has not used yet.
fn new_id() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("b{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn installed(program: &str, notes: &mut Vec<String>) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        notes.push(format!("{program} is not installed"));
    }
    found
}

/// A bundle as `runc spec` makes it, with the limits that a Garth project has and no terminal.
fn bundle(dir: &Path, rootfs: &Path, argv: &[&str]) -> Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let made = Command::new("runc").arg("spec").current_dir(dir).status().context("runc spec makes the bundles")?;
    ensure!(made.success(), "runc spec failed");
    change(dir, dir, |config| {
        config["root"] = json!({"path": rootfs, "readonly": false});
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(argv);
        config["linux"]["resources"] = json!({
            "memory": {"limit": MEMORY}, "pids": {"limit": 4096}, "cpu": {"quota": 200_000, "period": 100_000},
        });
    })?;
    Ok(dir.to_owned())
}

fn change(from: &Path, to: &Path, change: impl FnOnce(&mut Value)) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let mut config: Value = serde_json::from_slice(&std::fs::read(from.join("config.json"))?)?;
    change(&mut config);
    std::fs::write(to.join("config.json"), serde_json::to_vec(&config)?)?;
    Ok(())
}
