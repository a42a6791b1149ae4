//! What a guest is, and what runs it.

use std::fs;

use crate::{create, create_with, pid, project};

#[test]
fn a_guest_has_a_kernel_of_its_own_and_files_that_stay() {
    let Some(yard) = project("a_guest_has_a_kernel_of_its_own_and_files_that_stay", "m") else { return };
    let host = fs::read_to_string("/proc/sys/kernel/osrelease").expect("release");
    assert_ne!(yard.ok(&["exec", "m", "--", "uname", "-r"]), host.trim());
    assert_ne!(
        yard.sh("m", "cat /proc/sys/kernel/random/boot_id"),
        fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("id").trim()
    );
    let inspected = yard.json(&["inspect", "m"]);
    assert_eq!(inspected["runtime"]["handler"], crate::handler(), "{inspected}");
    let accelerator = inspected["runtime"]["accelerator"].as_str().expect("an accelerator").to_owned();
    let told = yard.ok(&["inspect", "m"]);
    assert_eq!(told.contains("translated"), accelerator == "tcg", "{told}");
    if accelerator == "tcg" {
        // The kernel keeps away from an instruction that QEMU 7.2 translates wrongly; programs may count on it.
        assert!(!yard.sh_succeeds("m", "grep -qw cx16 /proc/cpuinfo"));
        yard.sh("m", "/lib64/ld-linux-x86-64.so.2 --help | grep 'x86-64-v2 (supported'");
    }
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let echoed = yard.garth_with(&["exec", "-i", "m", "--", "cat"], &bytes);
    assert!(echoed.stdout == bytes, "{} bytes came back", echoed.stdout.len());
    assert_eq!(yard.garth(&["exec", "m", "--", "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(yard.garth(&["exec", "m", "--", "no-such-program"]).code, 127);
    let terminal = yard.ok(&["exec", "-t", "m", "--", "sh", "-c", "test -t 0 && tty"]);
    assert!(terminal.contains("/dev/pts/"), "{terminal}");
    // Nobody listens to its console any more, and it runs on whatever it says there.
    yard.sh("m", "for n in 1 2 3 4 5; do echo '<0>said' > /dev/kmsg; done");
    yard.sh("m", "echo kept > /root/f; chown 1000:1001 /root/f; ln -s /etc/passwd /root/l; echo more > /usr/local/g");
    yard.ok(&["stop", "m"]);
    let line = "cat /root/f; stat -c %u:%g /root/f; readlink /root/l; cat /usr/local/g";
    assert_eq!(yard.sh("m", line), "kept\n1000:1001\n/etc/passwd\nmore");
    // Stopped as it was, the disk had nothing to mend.
    assert!(!yard.sh("m", "dmesg").contains("recovery complete"));
}

#[test]
fn the_program_that_runs_a_guest_is_nobody_with_nothing() {
    let Some(yard) = project("the_program_that_runs_a_guest_is_nobody_with_nothing", "m") else { return };
    create(&yard, "n");
    let of = |name: &str| {
        yard.ok(&["exec", name, "--", "true"]);
        let pid = pid(&yard, name);
        (pid, fs::read_to_string(format!("/proc/{pid}/status")).expect("status"))
    };
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let ((pid, status), (_, other)) = (of("m"), of("n"));
    let users = field(&status, "Uid");
    assert!(users[0].parse::<u32>().expect("a user") >= 65_536 && users.iter().all(|id| *id == users[0]), "{users:?}");
    assert_ne!(users, field(&other, "Uid"), "two guests share a user");
    assert!(field(&status, "Groups").is_empty());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&status, set), ["0000000000000000"], "{set}");
    }
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), (vec!["1".to_owned()], vec!["2".to_owned()]));
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = |of: &str| fs::read_link(format!("/proc/{of}/ns/{kind}")).expect("a namespace");
        assert_ne!(link(&pid.to_string()), link("self"), "{kind}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).expect("mounts");
    let writable: Vec<&str> = mounts
        .lines()
        .filter(|line| line.split(' ').nth(3).is_some_and(|options| options.starts_with("rw")))
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    let mut expected = ["/dev/null", "/dev/urandom", "/disks/root", "/own"].to_vec();
    let devices = ["/dev/kvm", "/dev/net/tun"];
    expected.extend(devices.iter().filter(|device| mounts.contains(&format!(" {device} "))));
    for place in &writable {
        assert!(expected.contains(place), "{place} can be written: {mounts}");
    }
}

#[test]
fn a_guest_cannot_write_more_than_its_disk_and_gives_back_what_it_deletes() {
    let Some(yard) = project("a_guest_cannot_write_more_than_its_disk", "big") else { return };
    yard.ok(&["rm", "-f", "big"]);
    let options = ["--runtime", "microvm", "--memory", "256MiB", "--network", "none", "--disk", "128MiB"];
    yard.ok(&[&["create", "m"][..], &options].concat());
    let full = yard.garth(&[
        "exec",
        "m",
        "--",
        "sh",
        "-c",
        "head -c 200M /dev/urandom > /root/all; echo $?; stat -c %s /root/all",
    ]);
    assert!(full.stderr.contains("No space left"), "{full:?}");
    let used = || yard.json(&["inspect", "m"])["disk"]["used"].as_u64().expect("bytes");
    yard.sh("m", "sync");
    let before = used();
    assert!(before > 64 << 20 && before <= 128 << 20, "{before}");
    yard.sh("m", "rm /root/all");
    yard.ok(&["pause", "m"]);
    yard.ok(&["resume", "m"]);
    assert!(used() < before / 2, "{} of {before} bytes are still taken", used());
}

#[test]
fn a_disk_grows_with_the_next_start_and_never_shrinks() {
    let Some(yard) = project("a_disk_grows_with_the_next_start_and_never_shrinks", "m") else { return };
    let size = || yard.sh("m", "df -B1M --output=size / | tail -1").trim().parse::<u64>().expect("MiB");
    let before = size();
    yard.ok(&["set", "m", "--disk", "12GiB"]);
    yard.ok(&["restart", "m"]);
    assert!(size() > before + 1500, "{} after {before}", size());
    let refused = yard.garth(&["set", "m", "--disk", "1GiB"]);
    assert!(refused.code != 0 && refused.stderr.contains("never shrinks"), "{refused:?}");
}

#[test]
fn a_guest_that_is_too_small_is_refused_before_anything_starts() {
    let Some(yard) = project("a_guest_that_is_too_small_is_refused", "m") else { return };
    yard.ok(&["set", "m", "--memory", "64MiB"]);
    let refused = yard.garth(&["start", "m"]);
    assert!(refused.code != 0 && refused.stderr.contains("128 MiB"), "{refused:?}");
    yard.ok(&["set", "m", "--memory", "128MiB"]);
    assert_eq!(yard.ok(&["exec", "m", "--", "echo", "up"]), "up");
}

#[test]
fn every_check_of_the_level_passes() {
    let Some(yard) = project("every_check_of_the_level_passes", "unused") else { return };
    create_with(&yard, "m", "internet");
    create_with(&yard, "n", "internet");
    yard.ok(&["start", "n"]);
    let outcome = yard.json(&["verify", "m"]);
    assert_eq!((&outcome["handler"], &outcome["passed"]), (&crate::handler().into(), &true.into()), "{outcome}");
}

/// What `doctor` tried once since the host's start it does not try again.
#[test]
fn doctor_has_a_guest_boot_once() {
    let Some(yard) = project("doctor_has_a_guest_boot_once", "m") else { return };
    // So that there is something to boot.
    yard.ok(&["start", "m"]);
    let boot = || {
        let doctor = yard.ok(&["doctor"]);
        let handler = format!("runtime {}: ", crate::handler());
        let of_it = doctor.lines().skip_while(|line| !line.starts_with(&handler)).skip(1);
        let found = of_it.take_while(|line| line.starts_with(' ')).find(|line| line.contains("boot: "));
        found.expect("a boot").to_owned()
    };
    let first = boot();
    assert!(first.starts_with("  ok  boot: a guest came up in ") && first.contains("Linux "), "{first}");
    let kept = format!("/var/cache/garth/boots/{}.json", crate::handler().replace('/', "-"));
    let made = || std::fs::metadata(&kept).and_then(|kept| kept.modified()).expect("what was found");
    let before = made();
    assert_eq!(boot(), first);
    assert_eq!(made(), before);
    // What is of another boot of the host, or damaged, does not count.
    let text = std::fs::read_to_string(&kept).expect("what was found");
    std::fs::write(&kept, text.replace("\"host\":\"", "\"host\":\"x")).expect("write");
    assert!(boot().starts_with("  ok  boot: a guest came up in "));
    assert!(made() > before);
}
