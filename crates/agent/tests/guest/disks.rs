//! A project's disk, and an image's /usr with a few programs of this host.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const PROGRAMS: [&str; 9] = ["cat", "dash", "head", "id", "ls", "stty", "sync", "touch", "uname"];

/// Both as ext4.
pub fn make(root: &Path, usr: &Path) {
    let tree = tempfile::tempdir().expect("tree");
    let at = |path: &str| tree.path().join(path);
    for dir in ["rootfs/etc", "rootfs/root", "rootfs/tmp", "rootfs/usr"] {
        std::fs::create_dir_all(at(dir)).expect("directory");
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), at("rootfs").join(name)).expect("link");
    }
    std::fs::write(at("rootfs/etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("passwd");
    std::fs::write(at("rootfs/etc/group"), "root:x:0:\n").expect("group");
    image(tree.path(), root, "512M");

    let tree = tempfile::tempdir().expect("tree");
    std::fs::create_dir(tree.path().join("bin")).expect("directory");
    for program in PROGRAMS {
        copy(program, tree.path());
    }
    symlink("dash", tree.path().join("bin/sh")).expect("link");
    image(tree.path(), usr, "64M");
}

fn image(tree: &Path, file: &Path, size: &str) {
    let made = Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-d"]).arg(tree).arg(file).arg(size).output();
    let made = made.expect("mke2fs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A program, and the libraries that it names, to the same places below /usr.
fn copy(program: &str, usr: &Path) {
    let which = Command::new("sh").args(["-c", &format!("realpath $(command -v {program})")]).output().expect("sh");
    let file = String::from_utf8(which.stdout).expect("a path").trim().to_owned();
    std::fs::copy(&file, usr.join("bin").join(program)).expect("program");
    let needed = Command::new("ldd").arg(&file).output().expect("ldd").stdout;
    for library in String::from_utf8(needed).expect("text").split_whitespace().filter(|word| word.starts_with('/')) {
        let to = usr.join(library.trim_start_matches("/usr").trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("directory");
        std::fs::copy(library, to).expect("library");
    }
}
