use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::screen::Terminal;
use crate::yard::{Yard, eventually};

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
    let mut shell = terminal.run(yard.command(&["exec", "-it", "t", "--", "sh"]));
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
        let mut child = terminal.run(yard.command(&["exec", "-it", "t", "--", "sleep", "1000"]));
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
    let mut shell = terminal.run(yard.command(&["shell", "t"]));
    terminal.types("test -t 0 && echo it is $((40+2))\r");
    terminal.shows("it is 42");
    terminal.types("exit\r");
    assert_eq!(shell.wait().expect("ends").code(), Some(0));
}

#[test]
fn rm_asks_and_takes_no_for_an_answer() {
    let yard = with_project();
    let mut terminal = Terminal::new();
    let mut asking = terminal.run(yard.command(&["rm", "t"]));
    terminal.shows("Delete t and all files in it for good? [y/N]");
    terminal.types("\n");
    assert_eq!(asking.wait().expect("ends").code(), Some(5));
    assert_eq!(yard.project_names(), ["t"]);
    let mut asking = terminal.run(yard.command(&["rm", "t"]));
    terminal.shows("[y/N]");
    terminal.types("y\n");
    assert_eq!(asking.wait().expect("ends").code(), Some(0));
    assert_eq!(yard.project_names(), Vec::<String>::new());
}
