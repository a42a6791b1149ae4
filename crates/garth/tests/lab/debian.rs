//! A Debian with KVM in a virtual machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAMS: [&str; 4] = ["qemu-system-x86_64", "mmdebstrap", "mke2fs", "mkfs.erofs"];

const PACKAGES: &str = "linux-image-cloud-amd64,btrfs-progs,e2fsprogs,erofs-utils,nftables,iproute2,python3,procps,kmod,util-linux,virtiofsd";

/// Longer than all of it takes on a machine that does nothing else.
const SECONDS: &str = "3000";

/// What is to be done comes on a disk of its own.
const INIT: &str = "#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mount -o remount,rw /; mkdir -p /mnt/payload; mount -o ro /dev/vdb /mnt/payload
sh /mnt/payload/orders 2>&1
sync; echo o > /proc/sysrq-trigger; sleep 60
";

/// A file system with a kernel and its first files beside it.
#[derive(Debug)]
pub struct Base(PathBuf);

/// The first program that this needs and the host has not.
pub fn missing() -> Option<&'static str> {
    let is_missing = |program: &&str| !Command::new("which").arg(program).output().is_ok_and(|o| o.status.success());
    PROGRAMS.into_iter().find(|program| is_missing(program))
}

/// Beside the test programs, so that it goes with `cargo clean`.
pub fn place() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab")
}

/// Made once.
pub fn base() -> Base {
    let place = place();
    let base = Base(place.join("base-2.ext4"));
    if base.0.exists() {
        return base;
    }
    let root = place.join("root");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(&place).expect("a place for the machine");
    let keep = format!("--customize-hook=cp -L \"$1/vmlinuz\" \"$1/initrd.img\" '{}'", place.display());
    let include = format!("--include={PACKAGES}");
    must(
        Command::new("mmdebstrap")
            .args(["--variant=minbase", "--components=main", &include, &keep, "trixie"])
            .arg(&root),
    );
    // As the daemon in there would make it, slowly.
    let usr = root.join("var/cache/garth/usr");
    std::fs::create_dir_all(&usr).expect("dir");
    must(Command::new("mkfs.erofs").args(["-d0", "-zlz4"]).arg(usr.join("usr.erofs")).arg(root.join("usr")));
    let init = root.join("lab-init");
    std::fs::write(&init, INIT).expect("init");
    std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    let made = image(&root, &place.join("base.new"), "6G");
    std::fs::remove_dir_all(&root).expect("remove");
    std::fs::rename(made, &base.0).expect("rename");
    base
}

/// A tree as a file system in a file.
pub fn image(tree: &Path, at: &Path, size: &str) -> PathBuf {
    must(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-d"]).arg(tree).arg(at).arg(size));
    at.to_owned()
}

/// The newest build of another test program of this crate: cargo puts it beside this one.
pub fn test_program(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("this program");
    let is = |path: &PathBuf| {
        let named = path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-")));
        named && path.extension().is_none()
    };
    let found = std::fs::read_dir(here.parent().expect("deps")).expect("deps").flatten().map(|entry| entry.path());
    let newest = found.filter(is).max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
    newest.unwrap_or_else(|| panic!("no test program {name}: cargo test -p garth --test {name} --no-run"))
}

impl Base {
    /// Boots it, runs it to its power-off; what it printed. Until then that is in `NAME.console` beside it.
    pub fn boot(&self, payload: &Path, name: &str) -> String {
        let khz = garth_kernel::tsc::khz();
        let words = format!(
            "console=ttyS0 quiet root=/dev/vda rw init=/lab-init panic=-1 mitigations=off no_timer_check tsc=reliable \
             tsc_early_khz={khz} lpj={} clearcpuid=cx16",
            khz * 4
        );
        let drive = |file: &Path, more: &str| format!("file={},format=raw,if=virtio,{more}", file.display());
        let beside = |name: &str| self.0.with_file_name(name);
        let console = beside(&format!("{name}.console"));
        let mut machine = Command::new("timeout");
        // One processor: with a thread for each, a kernel that patches its own code trips over a stale translation now
        // and then (an oops by int3).
        machine.args([SECONDS, "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=single"]);
        machine.args(["-cpu", "EPYC,+svm,+npt", "-m", "3072", "-smp", "1", "-nodefaults", "-no-user-config"]);
        machine.args(["-nographic", "-no-reboot", "-nic", "none", "-append", &words]);
        machine.arg("-serial").arg(format!("file:{}", console.display()));
        machine.arg("-kernel").arg(beside("vmlinuz")).arg("-initrd").arg(beside("initrd.img"));
        machine.args(["-drive", &drive(&self.0, "snapshot=on"), "-drive", &drive(payload, "readonly=on")]);
        let output = machine.stdin(Stdio::null()).output().expect("qemu starts");
        let said = std::fs::read(console).unwrap_or_default();
        format!("{}{}", String::from_utf8_lossy(&said), String::from_utf8_lossy(&output.stderr))
    }
}

/// Runs a program that must succeed.
#[track_caller]
pub fn must(command: &mut Command) {
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
