use crate::yard::{Yard, scratch};

#[test]
fn cp_in_and_out_keeps_bytes_modes_and_links() {
    let yard = Yard::new();
    yard.ok(&["create", "c"]);
    let tree = yard.data_dir().join("tree");
    std::fs::create_dir(&tree).expect("dir");
    std::fs::write(tree.join("a"), vec![7u8; 3_000_000]).expect("file");
    std::fs::hard_link(tree.join("a"), tree.join("b")).expect("link");
    std::os::unix::fs::symlink("a", tree.join("l")).expect("symlink");
    let out = yard.data_dir().join("out");
    yard.ok(&["cp", &tree.to_string_lossy(), "c:/root/in"]);
    assert_eq!(yard.sh("c", "stat -c %h:%s /root/in/b; readlink /root/in/l"), "2:3000000\na");
    yard.ok(&["cp", "c:/root/in", &out.to_string_lossy()]);
    assert_eq!(std::fs::read(out.join("b")).expect("copied"), vec![7u8; 3_000_000]);
    assert_eq!(std::fs::read_link(out.join("l")).expect("link").to_string_lossy(), "a");
}

#[test]
fn cp_through_a_symlink_stays_inside_the_sandbox() {
    let yard = Yard::new();
    yard.ok(&["create", "c"]);
    let probe = scratch(&yard, "garth-e2e-probe", b"x");
    yard.sh("c", "ln -s /etc /root/evil; ln -s /etc/garth-e2e-probe /root/trap");
    let _ = yard.garth(&["cp", &probe.to_string_lossy(), "c:/root/evil/garth-e2e-probe"]);
    let _ = yard.garth(&["cp", &probe.to_string_lossy(), "c:/root/trap"]);
    assert!(!std::path::Path::new("/etc/garth-e2e-probe").exists(), "a symlink in the project reached the host");
}

#[test]
fn cp_of_what_the_sandbox_made_up_cannot_leave_the_target() {
    let yard = Yard::new();
    yard.ok(&["create", "c"]);
    yard.sh("c", "mkdir /root/d && ln -s /etc /root/d/e && echo y > /root/d/f");
    let out = yard.data_dir().join("out");
    yard.ok(&["cp", "c:/root/d", &out.to_string_lossy()]);
    assert!(std::fs::symlink_metadata(out.join("e")).expect("copied").is_symlink());
    assert_eq!(std::fs::read_to_string(out.join("f")).expect("copied"), "y\n");
}

#[test]
fn cp_to_a_full_disk_is_an_error_and_the_old_file_stays() {
    let yard = Yard::new();
    yard.ok(&["create", "c", "--disk", "64MiB"]);
    if yard.json(&["inspect", "c"])["disk"]["limit"].is_null() {
        eprintln!("SKIP cp_to_a_full_disk: the pool has no quotas here");
        return;
    }
    yard.sh("c", "echo old > /root/f");
    let big = scratch(&yard, "big", &vec![1u8; 100 << 20]);
    let done = yard.garth(&["cp", &big.to_string_lossy(), "c:/root/f"]);
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains("space") || done.stderr.contains("quota"), "{}", done.stderr);
    assert_eq!(yard.sh("c", "cat /root/f"), "old");
}

#[test]
fn cp_of_a_fifo_ends() {
    let yard = Yard::new();
    yard.ok(&["create", "c"]);
    yard.sh("c", "mkfifo /root/p");
    let out = yard.data_dir().join("p");
    let _ = yard.garth(&["cp", "c:/root/p", &out.to_string_lossy()]);
    let host = yard.data_dir().join("host-fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &host, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("fifo");
    let _ = yard.garth(&["cp", &host.to_string_lossy(), "c:/root/q"]);
    assert_eq!(yard.sh("c", "echo alive"), "alive");
}
