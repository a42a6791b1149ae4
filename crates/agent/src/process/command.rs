//! From a request to what the kernel needs: user, environment, directory, candidates for the program.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::time::Duration;

use garth_kernel::supervise::{Command, Identity, Privileges, Stdio};
use garth_protocol::agent::FailReason;
use garth_spec::AgentConfig;

use super::Failure;
use crate::users::{User, Users};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Over the sandbox's environment.
    pub env: Vec<(String, String)>,
    /// Empty for the default.
    pub cwd: String,
    /// Empty for the default.
    pub user: String,
    /// What its standard descriptors are.
    pub attachment: Attachment,
    /// Kills the tree after so long.
    pub timeout: Option<Duration>,
    /// Whether a record is kept even without output.
    pub detached: bool,
    /// Empty for one of the agent's making.
    pub id: String,
    /// Free text.
    pub tag: String,
}

/// What a process's standard descriptors are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Attachment {
    /// `/dev/null` and two pipes.
    #[default]
    Output,
    /// Three pipes.
    InputAndOutput,
    /// One terminal of this size.
    Terminal(Size),
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl Size {
    /// From a client's numbers; 0 stands for the usual size.
    pub fn new(cols: u32, rows: u32) -> Self {
        let bounded = |number: u32, usual: u16| if number == 0 { usual } else { number.try_into().unwrap_or(u16::MAX) };
        Self { cols: bounded(cols, 80), rows: bounded(rows, 24) }
    }
}

/// A request that is complete and can be carried out as soon as it has descriptors.
#[derive(Debug)]
pub struct Plan {
    /// The user.
    pub user: User,
    /// The directory, absolute.
    pub cwd: String,
    /// Files to try as the program.
    pub programs: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    privileges: Privileges,
}

impl Plan {
    /// Fills in what the request leaves open.
    pub fn new(request: &Request, config: &AgentConfig, users: &Users) -> Result<Self, Failure> {
        let program = request.argv.first().filter(|program| !program.is_empty());
        let program = program.ok_or_else(|| invalid("no program was given"))?;
        let asked = if request.user.is_empty() { &config.user } else { &request.user };
        let user =
            users.find(asked).map_err(|error| Failure::new(FailReason::FAIL_REASON_UNKNOWN_USER, error.to_string()))?;
        let env = environment(request, config, &user)?;
        let cwd = directory(&request.cwd, config, &user);
        let path = env.iter().find(|(name, _)| name == "PATH").map_or(PATH, |(_, value)| value);
        let programs = candidates(program, path).into_iter().map(text).collect::<Result<_, _>>()?;
        let argv = request.argv.iter().map(|word| text(word.as_str())).collect::<Result<_, _>>()?;
        let env = env.iter().map(|(name, value)| text(format!("{name}={value}"))).collect::<Result<_, _>>()?;
        let privileges = if config.no_new_privs { Privileges::Fixed } else { Privileges::Gainable };
        Ok(Self { user, cwd, programs, argv, env, privileges })
    }

    /// The kernel's order.
    pub fn command(self, stdio: Stdio) -> Result<Command, Failure> {
        let Self { user, cwd, programs, argv, env, privileges } = self;
        Ok(Command { programs, argv, env, cwd: text(cwd)?, identity: user.identity, stdio, privileges })
    }

    /// Lets the process reopen its descriptors through /dev/stdout and the like, which are root's otherwise.
    pub fn give(&self, fd: &OwnedFd) -> Result<(), Failure> {
        let Identity { uid, gid, .. } = self.user.identity;
        if uid == 0 {
            return Ok(());
        }
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(|errno| match errno {
            rustix::io::Errno::PERM => {
                let message = "the sandbox's processes run as one user, and none may become another";
                Failure::new(FailReason::FAIL_REASON_PERMISSION, message)
            }
            other => other.into(),
        })
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailReason::FAIL_REASON_INVALID, message)
}

fn text(bytes: impl Into<Vec<u8>>) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| invalid("an argument, variable or path holds a NUL byte"))
}

/// Defaults, then the sandbox's variables, then the request's.
fn environment(request: &Request, config: &AgentConfig, user: &User) -> Result<Vec<(String, String)>, Failure> {
    let mut env: Vec<(String, String)> = Vec::with_capacity(6 + config.env.len() + request.env.len());
    let defaults = [("PATH", PATH), ("HOME", &user.home), ("USER", &user.name), ("LOGNAME", &user.name)]
        .map(|(n, v)| (n.to_owned(), v.to_owned()));
    let terminal = matches!(request.attachment, Attachment::Terminal(_));
    let terminal = terminal.then(|| ("TERM".to_owned(), "xterm-256color".to_owned()));
    let given = config.env.iter().chain(&request.env).cloned();
    for (name, value) in defaults.into_iter().chain(terminal).chain(given) {
        if name.is_empty() || name.contains('=') {
            return Err(invalid(format!("{name:?} is not an environment variable's name")));
        }
        match env.iter_mut().find(|(other, _)| *other == name) {
            Some(entry) => entry.1 = value,
            None => env.push((name, value)),
        }
    }
    Ok(env)
}

fn directory(asked: &str, config: &AgentConfig, user: &User) -> String {
    let home = &user.home;
    match asked {
        "" => match &config.workdir {
            Some(dir) => dir.clone(),
            // A home that is missing is no reason to refuse what did not ask for it.
            None if std::path::Path::new(home).is_dir() => home.clone(),
            None => "/".to_owned(),
        },
        "~" => home.clone(),
        _ if asked.starts_with('/') => asked.to_owned(),
        _ => format!("{}/{}", home.trim_end_matches('/'), asked.trim_start_matches("~/")),
    }
}

fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    // An empty entry is the current directory (execvp(3)).
    path.split(':').map(|dir| format!("{}/{program}", if dir.is_empty() { "." } else { dir })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(change: impl FnOnce(&mut Request, &mut AgentConfig)) -> Result<Plan, Failure> {
        let etc = tempfile::tempdir().expect("temporary directory");
        std::fs::write(etc.path().join("passwd"), "root:x:0:0::/root:/bin/sh\n").expect("passwd");
        let mut request = Request { argv: vec!["true".to_owned()], ..Request::default() };
        let mut config = AgentConfig::default();
        change(&mut request, &mut config);
        Plan::new(&request, &config, &Users::of(etc.path()))
    }

    fn var(plan: &Plan, name: &str) -> Option<String> {
        let start = format!("{name}=");
        plan.env.iter().find_map(|v| v.to_str().ok()?.strip_prefix(&start).map(str::to_owned))
    }

    #[test]
    fn later_environment_wins() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let plan = plan(|request, config| {
            config.env = vec![pair("A", "image"), pair("HOME", "/image")];
            request.env = vec![pair("A", "request")];
        })
        .expect("plan");
        assert_eq!(var(&plan, "A").as_deref(), Some("request"));
        assert_eq!(var(&plan, "HOME").as_deref(), Some("/image"));
        assert_eq!(var(&plan, "USER").as_deref(), Some("root"));
        assert_eq!(var(&plan, "TERM"), None);
    }

    #[test]
    fn program_is_looked_up_in_the_process_s_own_path() {
        let plan = plan(|request, _| request.env = vec![("PATH".to_owned(), "/a::/b".to_owned())]).expect("plan");
        assert_eq!(plan.programs, [c"/a/true", c"./true", c"/b/true"].map(CString::from));
    }

    #[test]
    fn directories_begin_at_home() {
        let cwd = |asked: &str| {
            let asked = asked.to_owned();
            plan(|request, _| request.cwd = asked).expect("plan").cwd
        };
        assert_eq!(cwd("~"), "/root");
        assert_eq!(cwd("~/x"), "/root/x");
        assert_eq!(cwd("x"), "/root/x");
        assert_eq!(cwd("/x"), "/x");
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let refused = |change: fn(&mut Request)| plan(|request, _| change(request)).expect_err("refused").reason;
        let invalid = FailReason::FAIL_REASON_INVALID;
        assert_eq!(refused(|r| r.argv.clear()), invalid);
        assert_eq!(refused(|r| r.argv = vec![String::new()]), invalid);
        assert_eq!(refused(|r| r.argv.push("\0".to_owned())), invalid);
        assert_eq!(refused(|r| r.env = vec![("A=B".to_owned(), String::new())]), invalid);
        assert_eq!(refused(|r| r.user = "nobody-here".to_owned()), FailReason::FAIL_REASON_UNKNOWN_USER);
    }
}
