//! A terminal that a command of a test runs on.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

/// A terminal with a command on it.
pub struct Terminal {
    keyboard_and_screen: File,
    pub line: OwnedFd,
}

impl Terminal {
    pub fn new() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).expect("grant");
        unlockpt(&master).expect("unlock");
        let line = ioctl_tiocgptpeer(&master, flags).expect("its other end");
        tcsetwinsize(&line, Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 }).expect("size");
        Self { keyboard_and_screen: master.into(), line }
    }

    pub fn run(&self, mut command: Command) -> Child {
        let line = || Stdio::from(self.line.try_clone().expect("dup"));
        command.stdin(line()).stdout(line()).stderr(line()).env("TERM", "xterm").spawn().expect("starts")
    }

    pub fn modes(&self) -> Termios {
        tcgetattr(&self.line).expect("modes")
    }

    pub fn is_raw(&self) -> bool {
        !self.modes().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    pub fn types(&mut self, keys: &str) {
        self.keyboard_and_screen.write_all(keys.as_bytes()).expect("type");
    }

    /// Reads the screen until it shows `text`; the reader of a terminal that shows nothing hangs, and the
    /// harness's deadline for the command is the bound.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
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
