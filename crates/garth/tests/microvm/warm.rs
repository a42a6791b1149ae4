//! Machines that go on from a template instead of booting.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::yard::{Yard, eventually, finish, skip};
use crate::{handler, pid, state};

/// What no other guest may have, one a line.
const WHAT_IT_IS: &str = "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id /sys/class/net/e*/address
head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid";
const DISTINCT: [&str; 6] = ["hostname", "machine-id", "boot id", "hardware address", "random bytes", "random uuid"];

const SECRET: &str = "aQ7v-not-in-any-template-Zk2x";

/// A yard whose daemon keeps templates of its own, and where they are.
struct Nursery {
    yard: Yard,
    cache: PathBuf,
}

impl Nursery {
    fn new(test: &str) -> Option<Self> {
        let yard = Yard::new();
        if !yard.ok(&["doctor"]).contains(&format!("runtime {}: works", handler())) {
            skip(test, &handler());
            return None;
        }
        // The files that guests start from take minutes to make: these are those of all tests. Where there is no registry of
        // packages they are there already.
        yard.garth(&["setup", "microvm"]);
        let shared = std::env::var_os("GARTH_CACHE_DIR").map_or_else(|| "/var/cache/garth".into(), PathBuf::from);
        let made = fs::canonicalize(shared.join("guest/current")).expect("what guests start from");
        let cache = yard.data_dir().join("cache");
        fs::create_dir_all(cache.join("guest")).expect("cache");
        symlink(made.file_name().expect("a key"), cache.join("guest/current")).expect("current");
        symlink(&made, cache.join("guest").join(made.file_name().expect("a key"))).expect("files");
        fs::create_dir_all(shared.join("usr")).expect("a place for /usr");
        symlink(shared.join("usr"), cache.join("usr")).expect("usr");
        yard.terminate_daemon();
        let nursery = Self { yard, cache };
        nursery.wake();
        Some(nursery)
    }

    /// Starts the daemon.
    fn wake(&self) {
        let mut command = self.yard.command(&["ls"]);
        let done = finish(command.env("GARTH_CACHE_DIR", &self.cache), b"");
        assert_eq!(done.code, 0, "{done:?}");
    }

    fn create(&self, name: &str, options: &[&str]) {
        let all = ["create", name, "--runtime", &handler(), "--memory", "256MiB"];
        self.yard.ok(&[&all[..], options].concat());
    }

    /// Waits for the one template; its memory.
    fn template(&self) -> PathBuf {
        let find = || {
            let entries = fs::read_dir(self.cache.join("templates")).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).find(|path| path.join("manifest.json").exists())
        };
        eventually("a template is made", || find().is_some());
        let files = fs::read_dir(find().expect("a template")).expect("a template").flatten();
        files.map(|file| file.path()).max_by_key(|file| file.metadata().map_or(0, |file| file.len())).expect("memory")
    }

    /// When the guest's kernel was done with itself, to the microsecond: no two boots take as long, and those that go on
    /// from one template had one boot.
    fn boot_of(&self, name: &str) -> String {
        self.yard.sh(name, "dmesg | grep -m1 ' as init process'")
    }
}

#[test]
fn ten_warm_clones_share_nothing_that_tells_them_apart_and_know_nothing_of_who_came_before() {
    let Some(nursery) = Nursery::new("ten_warm_clones_share_nothing") else { return };
    let yard = &nursery.yard;
    nursery.create("before", &["--env", &format!("TOKEN={SECRET}")]);
    yard.sh("before", &format!("echo {SECRET} $TOKEN > /root/secret; sync"));
    let template = fs::read(nursery.template()).expect("a template");
    let holds = |what: &str| template.windows(what.len()).any(|window| window == what.as_bytes());
    assert!(holds("Linux version") && !holds(SECRET), "the template knows the project before");
    yard.ok(&["stop", "before"]);
    let mut boots = BTreeSet::new();
    let told: Vec<Vec<String>> = (0..10)
        .map(|n| {
            let name = format!("clone{n}");
            nursery.create(&name, &[]);
            let told = yard.sh(&name, WHAT_IT_IS);
            assert!(told.starts_with(&name), "{told}");
            boots.insert(nursery.boot_of(&name));
            told.lines().map(str::to_owned).collect()
        })
        .collect();
    // One that could not go on from the template on a busy machine booted instead, which is no failure.
    assert!(boots.len() < 10, "all of them booted: {boots:?}");
    for (at, what) in DISTINCT.iter().enumerate() {
        let distinct: BTreeSet<_> = told.iter().map(|lines| &lines[at]).collect();
        assert_eq!(distinct.len(), 10, "{what}: {distinct:?}");
    }
    for name in ["clone0", "clone9"] {
        let guest: u64 = yard.sh(name, "date +%s").parse().expect("seconds");
        let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
        assert!(host.abs_diff(guest) < 30, "{guest} in {name}, {host} on the host");
        assert!(!yard.sh_succeeds(name, "ls /root/secret"), "{name} has the files of another");
    }
}

#[test]
fn a_project_that_began_warm_lives_as_others_do_and_a_bad_template_stops_nobody() {
    let Some(nursery) = Nursery::new("a_project_that_began_warm_lives_as_others_do") else { return };
    let yard = &nursery.yard;
    nursery.create("first", &["--network", "none", "--disk", "1GiB"]);
    let booted = nursery.boot_of("first");
    nursery.template();
    yard.ok(&["stop", "first"]);

    // Another disk, larger than that of the template and than the first one's, with what was on it.
    nursery.create("m", &["--network", "none", "--disk", "3GiB"]);
    yard.sh("m", "echo kept > /root/f; echo more > /usr/local/g");
    let warm = nursery.boot_of("m");
    assert_ne!(warm, booted);
    let megabytes: u64 = yard.sh("m", "df -B1M --output=size / | tail -1").trim().parse().expect("MiB");
    assert!(megabytes > 2500, "{megabytes}");
    let process =
        yard.ok(&["exec", "-d", "m", "--", "sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done"]);
    let last = || yard.ok(&["logs", "m", &process]).lines().last().and_then(|line| line.parse::<u64>().ok());
    eventually("it counts", || last() > Some(3));
    yard.ok(&["pause", "m"]);
    yard.ok(&["resume", "m"]);
    let now = last();
    eventually("it goes on", || last() > now);
    yard.ok(&["stop", "m"]);
    assert_eq!(yard.sh("m", "cat /root/f /usr/local/g"), "kept\nmore");
    // One that could not go on from the template, which the daemon says, booted instead.
    let log = fs::read_to_string(yard.data_dir().join("garth.log")).expect("the daemon's log");
    assert!(nursery.boot_of("m") == warm || log.contains("a template did not work"), "it did not begin warm again");
    assert!(!yard.sh("m", "dmesg").contains("recovery complete"), "the disk was not closed");

    // Changed under the daemon that knows it. On a busy machine it may be another by now: one that could not go on from it booted
    // instead, and had a new one made.
    let template = nursery.template();
    fs::write(&template, "no memory").expect("damage");
    yard.ok(&["stop", "m"]);
    assert_eq!(yard.sh("m", "cat /root/f"), "kept");
    assert_ne!(nursery.boot_of("m"), warm);
    let again = nursery.template();
    eventually("it is made again", || fs::metadata(&again).is_ok_and(|state| state.len() > 1 << 20));
    yard.ok(&["stop", "m"]);
    let second = nursery.boot_of("m");
    // Changed while no daemon was there to see it.
    yard.ok(&["stop", "m"]);
    yard.terminate_daemon();
    let length = fs::metadata(&again).expect("state").len();
    fs::OpenOptions::new().write(true).open(&again).and_then(|state| state.set_len(length / 2)).expect("cut");
    nursery.wake();
    assert_eq!(yard.sh("m", "cat /root/f"), "kept");
    assert_ne!(nursery.boot_of("m"), second);
    assert_eq!(state(yard, "m"), "running");
    assert!(pid(yard, "m") > 0);
}
