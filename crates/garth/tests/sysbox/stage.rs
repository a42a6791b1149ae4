//! The sandboxes that checks are tried in, and what a check is written with.
use std::sync::OnceLock;

use crate::rootfs;
use crate::yard::{Done, Yard};

/// One line of the table.
pub struct Check {
    pub number: u8,
    pub what: &'static str,
    pub by: fn(&Stage) -> Checked,
}

pub type Checked = Result<(), Why>;

/// Why a check did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    Fail(String),
    /// The kernel or the machine lacks something.
    Missing(String),
}

pub fn fail<T>(why: impl Into<String>) -> Result<T, Why> {
    Err(Why::Fail(why.into()))
}

pub fn missing<T>(what: impl Into<String>) -> Result<T, Why> {
    Err(Why::Missing(what.into()))
}

/// `wrong` says what it means that this does not hold.
pub fn ensure(holds: bool, wrong: impl Into<String>) -> Checked {
    if holds { Ok(()) } else { fail(wrong) }
}

pub fn equal(what: &str, is: &str, wanted: &str) -> Checked {
    ensure(is == wanted, format!("{what}: `{is}` and not `{wanted}`"))
}

/// System calls without a library's opinion; `call` gives the result or the negative error number's name.
const PRELUDE: &str = include_str!("prelude.py");

/// Two sandboxes of the host's own programs, and one with container engines.
pub struct Stage {
    pub yard: Yard,
    image: OnceLock<Result<&'static str, Why>>,
    work: OnceLock<Result<(), Why>>,
}

pub const ONE: &str = "one";
pub const TWO: &str = "two";
pub const WORK: &str = "work";
/// The limits of the first two.
pub const MEMORY: u64 = 512 << 20;

impl Stage {
    pub fn new() -> Self {
        let yard = Yard::new();
        for name in [ONE, TWO] {
            yard.ok(&["create", name, "--runtime", "sysbox", "--memory", "512MiB", "--cpus", "1"]);
            yard.ok(&["start", name]);
        }
        Self { yard, image: OnceLock::new(), work: OnceLock::new() }
    }

    /// The image with container engines.
    pub fn image(&self) -> Result<&'static str, Why> {
        self.image.get_or_init(|| rootfs::image(&self.yard)).clone()
    }

    /// The name of the sandbox with container engines.
    pub fn work(&self) -> Result<&'static str, Why> {
        let made = self.work.get_or_init(|| {
            let image = self.image()?;
            self.yard.ok(&["create", WORK, "--runtime", "sysbox", "--image", image, "--memory", "2GiB"]);
            Ok(())
        });
        made.clone().map(|()| WORK)
    }

    pub fn exec(&self, name: &str, program: &[&str]) -> Done {
        let args: Vec<&str> = ["exec", name, "--"].into_iter().chain(program.iter().copied()).collect();
        self.yard.garth(&args)
    }

    /// What a shell line prints; it must succeed.
    pub fn sh(&self, name: &str, line: &str) -> Result<String, Why> {
        succeeded(line, self.exec(name, &["sh", "-ec", line]))
    }

    /// As another user.
    pub fn sh_as(&self, user: &str, name: &str, line: &str) -> Result<String, Why> {
        succeeded(line, self.yard.garth(&["exec", "-w", "/", "-u", user, name, "--", "sh", "-ec", line]))
    }

    /// What a Python program prints, with `call` and the like at hand; it must succeed.
    pub fn python(&self, name: &str, program: &str) -> Result<String, Why> {
        self.python_by(name, &[], program)
    }

    /// The same, started by another program, such as unshare.
    pub fn python_by(&self, name: &str, by: &[&str], program: &str) -> Result<String, Why> {
        let text = format!("{PRELUDE}\n{program}");
        let args: Vec<&str> = by.iter().copied().chain(["python3", "-c", &text]).collect();
        succeeded(program, self.exec(name, &args))
    }

    /// Shell lines that all must fail.
    pub fn refused(&self, name: &str, lines: &[&str]) -> Checked {
        for line in lines {
            let done = self.exec(name, &["sh", "-ec", line]);
            ensure(done.code != 0, format!("`{line}` is not refused"))?;
            ensure(done.code < 125, format!("`{line}`: {}", done.stderr.trim()))?;
        }
        Ok(())
    }

    /// What an inspection says.
    pub fn about(&self, name: &str) -> serde_json::Value {
        self.yard.json(&["inspect", name])
    }

    /// The first process of a sandbox, by its number on the host.
    pub fn init(&self, name: &str) -> Result<i64, Why> {
        self.about(name)["pid"].as_i64().map_or_else(|| fail(format!("{name} does not run")), Ok)
    }

    /// A sandbox for one check, gone afterwards.
    pub fn with_own<T>(&self, name: &str, check: impl FnOnce(&str) -> Result<T, Why>) -> Result<T, Why> {
        self.yard.ok(&["create", name, "--runtime", "sysbox", "--network", "none"]);
        let result = check(name);
        self.yard.ok(&["rm", "-f", name]);
        result
    }
}

fn succeeded(line: &str, done: Done) -> Result<String, Why> {
    if done.code == 0 {
        return Ok(done.text());
    }
    let begin: String = line.lines().next().unwrap_or_default().chars().take(60).collect();
    let said: Vec<&str> = done.stderr.lines().rev().filter(|line| !line.contains("dmesg(1)")).take(2).collect();
    fail(format!("{} (exit {}) of `{begin}…`", said.join("; "), done.code))
}

/// The words of a file of the host.
pub fn on_host(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
