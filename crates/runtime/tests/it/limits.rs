use garth_runtime::ErrorKind;
use garth_spec::{ByteSize, CpuCount, Limits};

use crate::support::{python, run, sh};
use crate::yard;

fn limits() -> Limits {
    Limits { memory: ByteSize::mib(64), cpus: CpuCount::try_from(0.5).expect("cpus"), pids: 32, ..Limits::default() }
}

#[test]
fn a_memory_hog_is_ended_and_the_sandbox_lives() {
    let yard = yard!();
    let mut plan = yard.plan();
    plan.limits = limits();
    let sandbox = yard.start_with(&plan);
    let reply = run(&sandbox, &["/usr/bin/python3", "-c", "x=bytearray(200<<20)"]);
    assert_eq!(reply.code, 137, "{}", reply.err);
    assert_eq!(sandbox.usage().expect("usage").oom_kills, 1);
    assert_eq!(sh(&sandbox, "echo alive").out, "alive\n");
    sandbox.destroy().expect("destroy");
}

#[test]
fn a_fork_bomb_stops_at_the_limit() {
    let yard = yard!();
    let mut plan = yard.plan();
    plan.limits = limits();
    let sandbox = yard.start_with(&plan);
    let reply = sh(&sandbox, "for i in $(seq 100); do sleep 60 >/dev/null 2>&1 & done");
    assert_ne!(reply.code, 0);
    let used = sandbox.usage().expect("usage").pids;
    assert!((2..=32).contains(&used), "{used}");
    sandbox.destroy().expect("destroy");
}

#[test]
fn limits_show_inside_and_change_while_it_runs() {
    let yard = yard!();
    let mut plan = yard.plan();
    plan.limits = limits();
    let sandbox = yard.start_with(&plan);
    let shown = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null";
    assert_eq!(sh(&sandbox, shown).out, "67108864\n");
    let more = Limits { memory: ByteSize::mib(128), ..limits() };
    sandbox.set_limits(&more).expect("raise");
    assert_eq!(sh(&sandbox, shown).out, "134217728\n");
    sandbox.set_limits(&limits()).expect("lower");
    assert_eq!(sh(&sandbox, shown).out, "67108864\n");
    sandbox.destroy().expect("destroy");
}

#[test]
fn a_limit_below_what_is_used_is_refused() {
    let yard = yard!();
    let sandbox = yard.start();
    sh(&sandbox, "head -c 60M /dev/zero > /dev/shm/f");
    let less = Limits { memory: ByteSize::mib(16), ..limits() };
    let error = sandbox.set_limits(&less).expect_err("in use");
    assert!(matches!(error.kind, ErrorKind::InUse), "{error:?}");
    assert_eq!(sh(&sandbox, "echo alive").out, "alive\n");
    sandbox.destroy().expect("destroy");
}

#[test]
fn a_slot_used_again_shows_nothing_of_the_last_sandbox() {
    let yard = yard!();
    for _ in 0..4 {
        let sandbox = yard.start();
        let before = sandbox.usage().expect("usage");
        // The last one used 100 ms more than its start.
        assert!(before.cpu_micros < 90_000 && before.oom_kills == 0 && before.pids <= 2, "{before:?}");
        python(&sandbox, "import time\nt=time.process_time()\nwhile time.process_time()-t<0.1: pass");
        let after = sandbox.usage().expect("usage");
        assert!(after.cpu_micros > before.cpu_micros + 90_000, "{after:?}");
        assert!(after.memory < 64 << 20, "{after:?}");
        sandbox.destroy().expect("destroy");
        yard.sandboxes().settle();
    }
}
