//! A root of its own for a program, with what its launch names and nothing else, and a user without privileges. It
//! isolates nothing: it shows that the program needs no more.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use garth_vm::{Access, Begin, Control, Descriptor, Machine, Place, Shown, Vmm};
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};

/// One emulated processor runs another.
const PATIENCE: Duration = Duration::from_secs(120);
const USER: u32 = 1000;

/// A running program; it ends with this.
pub struct Jail {
    pub place: Place,
    program: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Drop for Jail {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

impl Jail {
    /// Starts it below a directory that is not there yet. Its own directory has room for so many MiB.
    pub fn start(vmm: &Vmm, machine: &Machine, begin: Begin<'_>, at: &Path, room: u32) -> Self {
        let launch = vmm.launch(machine, begin);
        let root = at.join("root");
        let place = Place { host: at.to_owned(), own: root.join("own") };
        std::fs::create_dir_all(&place.own).expect("own");
        let options = std::ffi::CString::new(format!("size={room}m,uid={USER},gid={USER},mode=755")).expect("options");
        mount("own", &place.own, "tmpfs", MountFlags::empty(), options.as_c_str()).expect("own");
        launch.shown.iter().for_each(|shown| show(shown, &root));
        let mut arguments = launch.arguments;
        let (mut kept, mut console) = (Vec::new(), None);
        for (number, descriptor) in launch.descriptors.iter().enumerate() {
            let fd: OwnedFd = match descriptor {
                Descriptor::Channel => UnixListener::bind(place.channel()).expect("channel").into(),
                Descriptor::Control => UnixListener::bind(place.control()).expect("control").into(),
                Descriptor::Console => {
                    let (ours, theirs) = UnixStream::pair().expect("console");
                    console = Some(ours);
                    theirs.into()
                }
                Descriptor::Output | Descriptor::Tap | Descriptor::Share(_) => continue,
            };
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).expect("stays open");
            let text = fd.as_raw_fd().to_string();
            arguments.iter_mut().for_each(|word| *word = word.replace(&format!("%fd{number}%"), &text));
            kept.push(fd);
        }
        let plan = serde_json::json!([root, launch.program, arguments]).to_string();
        let mut this = match launch.tap {
            None => Command::new("/proc/self/exe"),
            Some(tap) => behind_tap(tap),
        };
        this.args(["--exact", "jail::enters_and_becomes_the_program", "--ignored", "--nocapture"]);
        this.env("LAB_PLAN", plan);
        let (program, lines) = match console {
            Some(console) => (this.stdout(Stdio::null()).spawn().expect("start"), lines(console)),
            None => {
                let mut program = this.stdout(Stdio::piped()).spawn().expect("start");
                let output = program.stdout.take().expect("stdout");
                (program, lines(output))
            }
        };
        Self { place, program, lines, said: Vec::new() }
    }

    pub fn control(&self, vmm: &Vmm) -> Control {
        vmm.control(&self.place).expect("connected")
    }

    /// The rest of the next line that begins so and that this takes.
    pub fn await_line(&mut self, word: &str, takes: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else { panic!("no {word} after {:#?}", self.said) };
            let found = line.find(word).map(|at| line[at + word.len()..].trim().to_owned());
            self.said.push(line);
            match found {
                Some(rest) if takes(&rest) => return rest,
                _ => {}
            }
        }
    }

    /// Waits until it has ended.
    pub fn await_end(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("no end after {:#?}", self.said),
            }
        }
        self.program.wait().expect("the program");
    }

    /// Forgets what it said.
    pub fn forget(&mut self) {
        while self.lines.try_recv().is_ok() {}
    }
}

/// This program in a network namespace of its own, with the tap that a launch asks for. The program has to own it: one
/// that is nobody's takes privileges since Linux 6.13 (tun_capable in drivers/net/tun.c).
fn behind_tap(tap: &str) -> Command {
    let make = format!("/ip tuntap add {tap} mode tap user {USER} && /ip link set {tap} up && exec \"$@\"");
    let mut command = Command::new("/busybox");
    command.args(["unshare", "--net", "/busybox", "sh", "-c", &make, "sh"]);
    command.arg(std::env::current_exe().expect("this program"));
    command
}

/// As a jail shows it.
fn show(shown: &Shown, root: &Path) {
    let at = root.join(shown.at.strip_prefix("/").expect("absolute"));
    std::fs::create_dir_all(at.parent().expect("parent")).expect("directories");
    let made = if shown.from.is_dir() { std::fs::create_dir(&at) } else { File::create(&at).map(drop) };
    made.expect("a place to mount on");
    mount_bind(&shown.from, &at).unwrap_or_else(|error| panic!("{}: {error}", shown.from.display()));
    if matches!(shown.access, Access::Read | Access::Run) {
        mount_remount(&at, MountFlags::BIND | MountFlags::RDONLY, "").expect("read-only");
    }
}

fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let _ = sender.send(String::from_utf8_lossy(&line).trim().to_owned());
        }
    });
    lines
}

/// Not a test: what [`Jail::start`] runs.
#[test]
#[ignore = "a part of the lab"]
fn enters_and_becomes_the_program() {
    let plan = std::env::var("LAB_PLAN").expect("a plan");
    let (root, program, arguments): (PathBuf, String, Vec<String>) = serde_json::from_str(&plan).expect("JSON");
    std::os::unix::fs::chroot(&root).expect("enter");
    rustix::thread::set_no_new_privs(true).expect("no new privileges");
    let error = Command::new(program).args(arguments).env_clear().current_dir("/").uid(USER).gid(USER).exec();
    panic!("{error}");
}
