use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::yard::{Yard, eventually};

/// A terminal with a command on it.
struct Terminal {
    keyboard_and_screen: File,
    line: OwnedFd,
}

impl Terminal {
    fn new() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).expect("grant");
        unlockpt(&master).expect("unlock");
        let line = ioctl_tiocgptpeer(&master, flags).expect("its other end");
        tcsetwinsize(&line, Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).expect("size");
        Self { keyboard_and_screen: master.into(), line }
    }

    fn run(&self, yard: &Yard, args: &[&str]) -> Child {
        let line = || Stdio::from(self.line.try_clone().expect("dup"));
        yard.command(args).stdin(line()).stdout(line()).stderr(line()).env("TERM", "xterm").spawn().expect("starts")
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.line).expect("modes")
    }

    fn is_raw(&self) -> bool {
        !self.modes().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn types(&mut self, keys: &str) {
        self.keyboard_and_screen.write_all(keys.as_bytes()).expect("type");
    }

    /// Reads the screen until it shows `text`; the reader of a terminal that shows nothing hangs, and the
    /// harness's deadline for the command is the bound.
    #[track_caller]
    fn shows(&mut self, text: &str) {
        let mut screen = Vec::new();
        let mut piece = [0; 4096];
        while !String::from_utf8_lossy(&screen).contains(text) {
            let mut polled = [rustix::event::PollFd::new(&self.keyboard_and_screen, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
            let ready = rustix::event::poll(&mut polled, Some(&limit)).expect("poll");
            assert_eq!(ready, 1, "never {text:?}, but {:?}", String::from_utf8_lossy(&screen));
            let read = self.keyboard_and_screen.read(&mut piece).expect("read");
            screen.extend_from_slice(&piece[..read]);
        }
    }
}

fn with_project() -> Yard {
    let yard = Yard::new();
    yard.ok(&["create", "t"]);
    yard
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("kill");
}

#[test]
fn a_terminal_has_its_size_job_control_and_ctrl_c() {
    let yard = with_project();
    let mut terminal = Terminal::new();
    let mut shell = terminal.run(&yard, &["exec", "-it", "t", "--", "sh"]);
    terminal.types("stty size; echo $TERM\r");
    terminal.shows("40 100\r\nxterm");
    tcsetwinsize(&terminal.line, Winsize { ws_row: 50, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).expect("size");
    signal(&shell, Signal::WINCH);
    terminal.types("until stty size | grep '50 120'; do sleep 0.02; done\r");
    terminal.shows("50 120\r\n");
    terminal.types("sleep 1000; echo code=$?\r");
    eventually("sleep is there", || yard.garth(&["exec", "t", "--", "pgrep", "-xc", "sleep"]).text() == "1");
    terminal.types("\x03");
    terminal.shows("^C");
    terminal.types("echo code=$((100+30))\r");
    terminal.shows("code=130");
    terminal.types("exit 5\r");
    assert_eq!(shell.wait().expect("ends").code(), Some(5));
    assert!(!terminal.is_raw());
}

#[test]
fn the_terminal_is_restored_however_the_command_ends() {
    let yard = with_project();
    let terminal = Terminal::new();
    let before = format!("{:?}", terminal.modes());
    for (name, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130), (Signal::QUIT, 131)] {
        let mut child = terminal.run(&yard, &["exec", "-it", "t", "--", "sleep", "1000"]);
        eventually("the terminal is raw", || terminal.is_raw());
        eventually("sleep is there", || yard.garth(&["exec", "t", "--", "pgrep", "-xc", "sleep"]).text() == "1");
        signal(&child, name);
        assert_eq!(child.wait().expect("ends").code(), Some(code), "{name:?}");
        assert_eq!(format!("{:?}", terminal.modes()), before, "{name:?}");
    }
}

#[test]
fn a_shell_is_a_terminal_without_asking() {
    let yard = with_project();
    let mut terminal = Terminal::new();
    let mut shell = terminal.run(&yard, &["shell", "t"]);
    terminal.types("test -t 0 && echo it is $((40+2))\r");
    terminal.shows("it is 42");
    terminal.types("exit\r");
    assert_eq!(shell.wait().expect("ends").code(), Some(0));
}

#[test]
fn rm_asks_and_takes_no_for_an_answer() {
    let yard = with_project();
    let mut terminal = Terminal::new();
    let mut asking = terminal.run(&yard, &["rm", "t"]);
    terminal.shows("Delete t and all files in it for good? [y/N]");
    terminal.types("\n");
    assert_eq!(asking.wait().expect("ends").code(), Some(5));
    assert_eq!(yard.project_names(), ["t"]);
    let mut asking = terminal.run(&yard, &["rm", "t"]);
    terminal.shows("[y/N]");
    terminal.types("y\n");
    assert_eq!(asking.wait().expect("ends").code(), Some(0));
    assert_eq!(yard.project_names(), Vec::<String>::new());
}
