use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::level::{BOX, DISK, Level, Sandbox};
use crate::yard::{eventually, skip};

levels! {
    every:
        the_agent_comes_before_its_processes,
        a_fork_bomb_ends_with_its_sandbox_and_no_neighbour,
        a_sandbox_whose_processes_are_used_up_goes_on,
        a_memory_hog_dies_alone,
        a_full_disk_is_the_projects_own,
        shared_memory_and_tmpfs_count_as_the_sandboxes_own;
}

/// While the sandbox misbehaves, a neighbour must not notice.
fn neighbour_answers(sandbox: &Sandbox) {
    if !sandbox.yard.project_names().contains(&"calm".to_owned()) {
        sandbox.yard.ok(&["create", "calm"]);
    }
    assert_eq!(sandbox.yard.sh("calm", "head -c 1M /dev/zero > /root/f && echo wrote"), "wrote");
}

fn id(sandbox: &Sandbox) -> String {
    let project = sandbox.yard.json(&["inspect", BOX]);
    project["sandbox_id"].as_str().unwrap_or_else(|| panic!("it runs: {project}")).to_owned()
}

fn the_agent_comes_before_its_processes(sandbox: &Sandbox) {
    let number = |line: &str| sandbox.sh(line).parse::<i32>().unwrap_or_else(|error| panic!("{line}: {error}"));
    // proc_pid_stat(5), after the name, which is one word here.
    let nice = |process: &str| number(&format!("cut -d' ' -f19 /proc/{process}/stat"));
    assert!(nice("1") < nice("self"), "for processor time");
    assert_eq!(nice("self"), 0);
    // Where users are mapped a program has it a moment after it began.
    let agent = number("cat /proc/1/oom_score_adj");
    let is_more = format!("[ $(cat /proc/$$/oom_score_adj) -gt {agent} ]");
    let told = sandbox.sh(&format!("for n in $(seq 500); do {is_more} && echo first && exit; sleep 0.01; done"));
    assert_eq!(told, "first", "when memory runs out, processes go first");
}

fn a_fork_bomb_ends_with_its_sandbox_and_no_neighbour(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    // A shell's bomb ends by itself when fork fails; this one goes on.
    let bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass";
    let bomb = yard.ok(&["exec", "-d", BOX, "--", "python3", "-c", bomb]);
    let count = || yard.json(&["inspect", BOX])["usage"]["pids"].as_u64();
    if sandbox.level != Level::Microvm {
        eventually("the limit on processes is met", || count() >= Some(190));
    }
    // On the host, a guest's processes are none.
    assert!(count() <= Some(201), "{:?}", count());
    neighbour_answers(sandbox);
    if sandbox.level != Level::Microvm {
        let _ = yard.garth(&["kill", BOX, &bomb]);
    }
    yard.ok(&["restart", BOX]);
    assert_eq!(sandbox.sh("echo back"), "back");
}

fn a_sandbox_whose_processes_are_used_up_goes_on(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let before = id(sandbox);
    // Late, so that nothing of the agent's is left from the start.
    let fill = "import os, time\ntime.sleep(3)\ntry:\n    while os.fork(): pass\n    time.sleep(1000)\nexcept OSError: pass\n\
                print('full', flush=True)\ntime.sleep(1000)";
    let mut filler = yard.command(&["exec", BOX, "--", "python3", "-c", fill]);
    let mut filler = filler.stdout(Stdio::piped()).spawn().expect("garth");
    let mut line = String::new();
    BufReader::new(filler.stdout.take().expect("piped")).read_line(&mut line).expect("its output");
    assert_eq!(line, "full\n");
    // Nothing more can be started, and that is said; files do not need it.
    let done = sandbox.exec(&["true"]);
    assert!((125..=127).contains(&done.code) && !done.stderr.is_empty(), "{done:?}");
    let copy = yard.data_dir().join("passwd");
    yard.ok(&["cp", &format!("{BOX}:/etc/passwd"), copy.to_str().expect("a path")]);
    assert_eq!(id(sandbox), before, "the sandbox ended");
    yard.ok(&["restart", BOX]);
    filler.wait().expect("it ends with the sandbox");
    assert_eq!(sandbox.sh("echo back"), "back");
}

fn a_memory_hog_dies_alone(sandbox: &Sandbox) {
    sandbox.sh("true");
    let before = id(sandbox);
    let done = sandbox.exec(&["python3", "-c", "x=bytearray(400<<20)"]);
    match sandbox.level {
        // A kernel of its own refuses at once what is more than all that it has.
        Level::Microvm => assert!(done.code == 1 && done.stderr.contains("MemoryError"), "{done:?}"),
        _ => assert_eq!(done.code, 137, "{done:?}"),
    }
    assert_eq!(sandbox.sh("echo alive"), "alive");
    assert_eq!(id(sandbox), before, "the sandbox ended");
    neighbour_answers(sandbox);
}

fn a_full_disk_is_the_projects_own(sandbox: &Sandbox) {
    if sandbox.yard.json(&["inspect", BOX])["disk"]["limit"].is_null() {
        skip("a_full_disk_is_the_projects_own", "the pool has no quotas here");
        return;
    }
    assert!(!sandbox.succeeds(&format!("head -c {} /dev/zero > /root/big", DISK + (1 << 20))));
    neighbour_answers(sandbox);
    sandbox.sh("rm -f /root/big");
    sandbox.sh("head -c 1M /dev/zero > /root/f");
}

fn shared_memory_and_tmpfs_count_as_the_sandboxes_own(sandbox: &Sandbox) {
    sandbox.sh("true");
    let before = id(sandbox);
    assert!(!sandbox.succeeds("head -c 400M /dev/zero > /dev/shm/f"));
    assert!(!sandbox.succeeds("head -c 400M /dev/zero > /run/f"));
    // Both are as full as they get, and a hog takes what is left. A kernel of its own thrashes for minutes before it ends one.
    if sandbox.level != Level::Microvm {
        assert!(!sandbox.succeeds("python3 -c 'x=bytearray(200<<20); x[:] = b\"x\" * len(x)'"));
    }
    sandbox.sh("rm -f /dev/shm/f /run/f");
    assert_eq!(id(sandbox), before, "the sandbox ended");
    neighbour_answers(sandbox);
}
