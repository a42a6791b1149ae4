//! What is left of a lab: nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use garth_cluster_lab::{BUSYBOX, Lab, wait_for};

/// Of the whole machine, and wished otherwise by a kubelet.
const SYSCTLS: [&str; 3] = ["vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"];

fn sysctls() -> Vec<String> {
    SYSCTLS.iter().map(|name| fs::read_to_string(format!("/proc/sys/{name}")).expect("a sysctl")).collect()
}

/// A cluster on which a Pod runs.
fn busy_lab() -> Lab {
    let lab = Lab::with_node().expect("a cluster");
    let image = format!("--image={BUSYBOX}");
    lab.run(&["run", "busy", &image, "--image-pull-policy=Never"]).expect("a pod");
    lab.run(&["wait", "--for=condition=Ready", "--timeout=120s", "pod", "busy"]).expect("it runs");
    lab
}

/// The cgroups, processes, mounts and devices of the lab whose folder this was, as far as they are there.
fn left(state: &Path) -> Vec<String> {
    let number = state.file_name().expect("a number").to_string_lossy().into_owned();
    let named = |folder: &Path, name: String| folder.join(name).exists().then(|| format!("{}", folder.display()));
    let entries = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten();
    let mut left: Vec<String> =
        entries.filter_map(|entry| named(&entry.path(), format!("garth-lab-{number}"))).collect();
    left.extend(named(Path::new("/sys/class/net"), format!("garth-lab{number}")));
    left.extend(state.exists().then(|| state.display().to_string()));
    let text = state.display().to_string() + "/";
    for process in fs::read_dir("/proc").expect("processes").flatten() {
        let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        left.extend(command.contains(&text).then(|| command.replace('\0', " ")));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    left.extend(mounts.lines().filter(|line| line.contains(&text)).map(str::to_owned));
    left
}

#[test]
fn a_dropped_lab_leaves_nothing() {
    if !Lab::is_possible("a_dropped_lab_leaves_nothing") {
        return;
    }
    let before = sysctls();
    let lab = busy_lab();
    let state = lab.state().to_owned();
    assert_ne!(left(&state), Vec::<String>::new(), "what is looked for is there while it runs");
    assert_eq!(sysctls(), before, "while it runs");
    drop(lab);
    assert_eq!(left(&state), Vec::<String>::new());
    assert_eq!(sysctls(), before, "after it");
}

#[test]
fn a_lab_whose_owner_is_killed_leaves_nothing() {
    if !Lab::is_possible("a_lab_whose_owner_is_killed_leaves_nothing") {
        return;
    }
    let mut owner = Command::new(std::env::current_exe().expect("this program"));
    owner.args(["--exact", "end::owns_a_lab_until_it_is_killed", "--ignored", "--nocapture"]);
    let mut owner = owner.stdout(Stdio::piped()).spawn().expect("an owner");
    let lines = BufReader::new(owner.stdout.take().expect("output")).lines();
    let state = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("STATE ").map(PathBuf::from));
    let state = state.expect("a lab");
    owner.kill().expect("killed");
    owner.wait().expect("its end");
    let mut found = Vec::new();
    let gone = wait_for("its end", Duration::from_secs(60), || {
        found = left(&state);
        Ok(found.is_empty())
    });
    gone.unwrap_or_else(|error| panic!("{error}: {found:#?}"));
}

#[test]
#[ignore = "run by a_lab_whose_owner_is_killed_leaves_nothing"]
fn owns_a_lab_until_it_is_killed() {
    let lab = busy_lab();
    println!("STATE {}", lab.state().display());
    loop {
        std::thread::park();
    }
}
