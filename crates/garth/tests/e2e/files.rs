use crate::level::{BOX, DISK, Sandbox};
use crate::yard::{scratch, skip};

levels! {
    every:
        cp_in_and_out_keeps_bytes_modes_and_links,
        cp_through_a_symlink_stays_inside_the_sandbox,
        cp_of_what_the_sandbox_made_up_cannot_leave_the_target,
        cp_to_a_full_disk_is_an_error_and_the_old_file_stays,
        cp_of_a_fifo_ends;
}

fn cp_in_and_out_keeps_bytes_modes_and_links(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let tree = yard.data_dir().join("tree");
    std::fs::create_dir(&tree).expect("dir");
    std::fs::write(tree.join("a"), vec![7u8; 3_000_000]).expect("file");
    std::fs::hard_link(tree.join("a"), tree.join("b")).expect("link");
    std::os::unix::fs::symlink("a", tree.join("l")).expect("symlink");
    let out = yard.data_dir().join("copied-out");
    yard.ok(&["cp", &tree.to_string_lossy(), "box:/root/in"]);
    assert_eq!(yard.sh(BOX, "stat -c %h:%s /root/in/b; readlink /root/in/l"), "2:3000000\na");
    yard.ok(&["cp", "box:/root/in", &out.to_string_lossy()]);
    assert_eq!(std::fs::read(out.join("b")).expect("copied"), vec![7u8; 3_000_000]);
    assert_eq!(std::fs::read_link(out.join("l")).expect("link").to_string_lossy(), "a");
}

fn cp_through_a_symlink_stays_inside_the_sandbox(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let probe = scratch(yard, "garth-e2e-probe", b"x");
    yard.sh(BOX, "ln -s /etc /root/evil; ln -s /etc/garth-e2e-probe /root/trap");
    let _ = yard.garth(&["cp", &probe.to_string_lossy(), "box:/root/evil/garth-e2e-probe"]);
    let _ = yard.garth(&["cp", &probe.to_string_lossy(), "box:/root/trap"]);
    assert!(!std::path::Path::new("/etc/garth-e2e-probe").exists(), "a symlink in the project reached the host");
}

fn cp_of_what_the_sandbox_made_up_cannot_leave_the_target(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    yard.sh(BOX, "mkdir /root/d && ln -s /etc /root/d/e && echo y > /root/d/f");
    let out = yard.data_dir().join("out");
    yard.ok(&["cp", "box:/root/d", &out.to_string_lossy()]);
    assert!(std::fs::symlink_metadata(out.join("e")).expect("copied").is_symlink());
    assert_eq!(std::fs::read_to_string(out.join("f")).expect("copied"), "y\n");
}

fn cp_to_a_full_disk_is_an_error_and_the_old_file_stays(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    if yard.json(&["inspect", BOX])["disk"]["limit"].is_null() {
        skip("cp_to_a_full_disk", "the pool has no quotas here");
        return;
    }
    yard.sh(BOX, "echo old > /root/f");
    let big = scratch(yard, "big", &vec![1u8; 64 << 20]);
    yard.sh(BOX, &format!("fallocate -l {} /root/fill", DISK - (48 << 20)));
    let done = yard.garth(&["cp", &big.to_string_lossy(), "box:/root/f"]);
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains("space") || done.stderr.contains("quota"), "{}", done.stderr);
    assert_eq!(yard.sh(BOX, "cat /root/f; rm /root/fill"), "old");
}

fn cp_of_a_fifo_ends(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    yard.sh(BOX, "mkfifo /root/p");
    let out = yard.data_dir().join("p");
    let _ = yard.garth(&["cp", "box:/root/p", &out.to_string_lossy()]);
    let host = yard.data_dir().join("host-fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &host, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("fifo");
    let _ = yard.garth(&["cp", &host.to_string_lossy(), "box:/root/q"]);
    assert_eq!(yard.sh(BOX, "echo alive"), "alive");
}
