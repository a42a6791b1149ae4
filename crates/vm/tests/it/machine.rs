//! A guest in QEMU without KVM, that runs a script and speaks on its serial line.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use garth_vm::guest::{Artifacts, Entry, Kind, archive};

/// A guest that says nothing more hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Ends QEMU with the test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The initrd as it was made, and behind it a second archive with a shell, a script and other files: the kernel unpacks
/// one after the other.
pub fn with_script(
    artifacts: &Artifacts,
    busybox: &Path,
    script: &str,
    others: &[(&str, &[u8])],
    directory: &Path,
) -> PathBuf {
    let busybox = std::fs::read(busybox).expect("busybox");
    let mut initrd = std::fs::read(artifacts.initrd()).expect("initrd");
    let mut files = vec![("busybox", &*busybox), ("script", script.as_bytes())];
    files.extend_from_slice(others);
    let entries = files.iter().map(|(path, content)| Entry { path: (*path).into(), kind: Kind::Program(content) });
    initrd.extend(archive(&entries.collect::<Vec<_>>()));
    let path = directory.join("initrd.img");
    std::fs::write(&path, initrd).expect("initrd");
    path
}

/// What the script said up to `garth:end`, each line and when.
pub fn run(artifacts: &Artifacts, initrd: &Path, machine: &[&str]) -> Vec<(String, Instant)> {
    let khz = khz();
    let kernel = format!(
        "console=ttyS0 quiet reboot=t panic=-1 mitigations=off no_timer_check tsc=reliable tsc_early_khz={khz} lpj={} \
         clearcpuid=cx16 rdinit=/script",
        khz * 4
    );
    let mut command = Command::new("qemu-system-x86_64");
    command.args(machine).args([
        "-accel",
        "tcg,thread=single",
        "-nodefaults",
        "-no-user-config",
        "-nographic",
        "-no-reboot",
    ]);
    command.args(["-m", "256", "-smp", "1", "-serial", "stdio", "-append", &kernel]);
    command.arg("-kernel").arg(artifacts.vmlinux()).arg("-initrd").arg(initrd);
    let mut machine = Machine(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("qemu"));
    let stdout = machine.0.stdout.take().expect("stdout");
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            // The firmware leaves its last words without an end of line.
            let line = line.find("garth:").map_or(line.clone(), |at| line[at..].to_owned());
            let _ = sender.send((line, Instant::now()));
        }
    });
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok((line, _)) if line == "garth:end" => return said,
            Ok(line) => said.push(line),
            Err(RecvTimeoutError::Timeout) => panic!("the guest hangs after {said:#?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the guest ended after {said:#?}"),
        }
    }
}

/// What a line says that begins with this word.
pub fn line<'a>(said: &'a [(String, Instant)], word: &str) -> &'a str {
    said.iter().find_map(|(line, _)| line.strip_prefix(word)?.strip_prefix(' ')).unwrap_or_default()
}

fn khz() -> u64 {
    let processors = std::fs::read_to_string("/proc/cpuinfo").expect("cpuinfo");
    let line = processors.lines().find(|line| line.starts_with("cpu MHz")).expect("cpu MHz");
    let mhz: f64 = line.rsplit(": ").next().and_then(|mhz| mhz.trim().parse().ok()).expect("a number");
    (mhz * 1000.0) as u64
}
