use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// An lxcfs of this benchmark's own, seen in its mount namespace alone.
#[derive(Debug)]
pub struct Lxcfs {
    dir: PathBuf,
    process: Child,
}

impl Lxcfs {
    /// Starts it and waits until it serves.
    pub fn mount(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        // Its end comes with ours, however we end.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "lxcfs", "-f", "-p"]).arg(dir.with_extension("pid")).arg(dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("starting lxcfs")?;
        let mut lxcfs = Self { dir: dir.to_owned(), process };
        let begin = Instant::now();
        while !lxcfs.dir.join("proc/meminfo").exists() {
            if let Some(status) = lxcfs.process.try_wait()? {
                bail!("it is not installed or did not start: {status}");
            }
            if begin.elapsed() > Duration::from_secs(10) {
                bail!("it does not serve within ten seconds");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(lxcfs)
    }

    /// Where it has its own of this file.
    pub fn file(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }
}

impl Drop for Lxcfs {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.dir).stderr(Stdio::null()).status();
    }
}
