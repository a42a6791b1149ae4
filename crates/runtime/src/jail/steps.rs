//! What makes a jail, as a list.
use std::path::Path;

use rustix::mount::MountFlags;

use super::{Access, JailPlan, Network};
use crate::steps::{INERT, Step};

/// Where a served directory is, in the jail of who serves it.
const SERVED: &str = "volume";
/// What it asks for how many files it may open: QEMU's, and its successor, which would not go beyond.
const MOST_FILES: [&str; 2] = ["proc/sys/fs/file-max", "proc/sys/fs/nr_open"];
/// Where its processes are.
const PROCESSES: &str = "processes";

/// Above everything of the host: what fills memory is the guest's doing.
const OOM_SCORE_ADJ: i32 = 200;

/// From the new process in its new namespaces to the program.
pub(super) fn jail_steps(plan: &JailPlan, user: u32, network: Network) -> Vec<Step> {
    let mut steps = enclosing(plan, user, network);
    steps.extend([Step::Seal(".".to_owned()), Step::BecomeRoot("."), Step::OwnKeyring, Step::OwnSession]);
    steps.extend([Step::BoundCapabilities, Step::BecomeUser(user), Step::NoNewPrivileges, Step::LateFilter]);
    steps
}

/// The same to a program that serves a directory: root of a user namespace whose users are nobody on the host. It opens
/// its own files by /proc/self, and is process 1: of /proc there is that and the one number that it asks for.
pub(super) fn server_steps(plan: &JailPlan, user: u32) -> Vec<Step> {
    let mut steps = enclosing(plan, user, Network::Nothing);
    let directories = ["proc", "proc/sys", "proc/sys/fs", PROCESSES, SERVED];
    steps.extend(directories.map(|at| Step::Directory(at.to_owned())));
    steps.extend(MOST_FILES.map(|at| Step::File { at, text: "1048576" }));
    steps.push(Step::Link { at: "proc/self".to_owned(), to: format!("/{PROCESSES}/1") });
    let flags = INERT | MountFlags::RDONLY;
    steps.push(Step::Mount { fs: "proc", at: PROCESSES.to_owned(), flags, options: "subset=pid" });
    steps.push(Step::Serve(SERVED));
    steps.extend([Step::Seal(".".to_owned()), Step::BecomeRoot("."), Step::OwnKeyring, Step::OwnSession]);
    steps.extend([Step::OpenFiles, Step::JoinUsers, Step::BoundCapabilities, Step::BecomeUser(0)]);
    steps.extend([Step::NoNewPrivileges, Step::LateFilter]);
    steps
}

/// A root with what is shown and nothing else.
fn enclosing(plan: &JailPlan, user: u32, network: Network) -> Vec<Step> {
    let oom = Step::Write { at: "/proc/self/oom_score_adj", text: OOM_SCORE_ADJ.to_string() };
    let mount = |at: &str| Step::Mount { fs: "tmpfs", at: at.to_owned(), flags: INERT, options: "mode=755,size=1m" };
    // 1 and not 0: fs/coredump.c runs a crash handler of the host (core_pattern "|…") for any limit but 1.
    let network = match network {
        Network::Nothing => Step::OwnNetwork,
        Network::Joined => Step::JoinNetwork,
    };
    let mut steps = vec![Step::CoreLimit(1), oom, network, Step::HideCgroups, Step::LeaveHostMounts];
    // The root goes on /proc: a directory that every host has and that nothing here needs any more.
    steps.extend([mount("/proc"), Step::Enter("/proc")]);
    for shown in &plan.shown {
        let at = below(&shown.at);
        let parents = Path::new(&at).ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
        let mut parents: Vec<_> = parents.map(|path| Step::Directory(path.display().to_string())).collect();
        parents.reverse();
        steps.extend(parents);
        let (from, flags) = (shown.from.clone(), flags(shown.access));
        steps.push(match shown.access {
            Access::Device => Step::OwnDevice { from, at, user, flags },
            _ => Step::Expose { from, at, flags },
        });
    }
    steps
}

fn below(path: &Path) -> String {
    path.strip_prefix("/").unwrap_or(path).display().to_string()
}

fn flags(access: Access) -> MountFlags {
    match access {
        Access::Read => INERT | MountFlags::RDONLY,
        Access::Run => MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY,
        Access::Write => INERT,
        Access::Device => MountFlags::NOSUID | MountFlags::NOEXEC,
    }
}

#[cfg(test)]
mod tests {
    use garth_spec::Limits;

    use super::*;
    use crate::jail::Shown;

    #[test]
    fn nothing_is_shown_after_the_root_is_left_and_the_filter_comes_last() {
        let shown = Shown { from: "/usr/lib/x.so".into(), at: "/lib/x.so".into(), access: Access::Run };
        let plan = JailPlan {
            program: "/vmm".to_owned(),
            arguments: Vec::new(),
            shown: vec![shown],
            limits: Limits::default(),
        };
        let steps = jail_steps(&plan, 7, Network::Nothing);
        let at = |wanted: &Step| steps.iter().position(|step| step == wanted).expect("a step");
        let expose = Step::Expose {
            from: "/usr/lib/x.so".into(),
            at: "lib/x.so".to_owned(),
            flags: MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY,
        };
        assert!(at(&Step::Directory("lib".to_owned())) < at(&expose));
        assert!(at(&expose) < at(&Step::BecomeRoot(".")));
        assert!(at(&Step::BecomeRoot(".")) < at(&Step::BecomeUser(7)));
        assert!(at(&Step::BecomeUser(7)) < at(&Step::LateFilter));
        assert_eq!(steps.last(), Some(&Step::LateFilter));
    }

    #[test]
    fn who_serves_a_directory_is_nobody_on_the_host_before_it_is_root_of_its_own() {
        let limits = Limits::default();
        let plan = JailPlan { program: "/server".to_owned(), arguments: Vec::new(), shown: Vec::new(), limits };
        let steps = server_steps(&plan, 7);
        let at = |wanted: &Step| steps.iter().position(|step| step == wanted).expect("a step");
        assert!(at(&Step::Serve(SERVED)) < at(&Step::BecomeRoot(".")));
        assert!(at(&Step::BecomeRoot(".")) < at(&Step::JoinUsers));
        assert!(at(&Step::JoinUsers) < at(&Step::BoundCapabilities));
        assert!(at(&Step::BoundCapabilities) < at(&Step::BecomeUser(0)));
        assert!(!steps.contains(&Step::BecomeUser(7)));
    }
}
