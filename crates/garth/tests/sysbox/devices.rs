//! Devices, the machine's state, files' owners, foreign binaries.
use crate::stage::{Check, Checked, ONE, Stage, TWO, ensure, equal, fail};
use crate::yard::eventually;

pub const CHECKS: &[Check] = &[
    Check { number: 49, what: "device nodes cannot be made", by: mknod },
    Check { number: 50, what: "null, zero, urandom, tty, fuse and tun are root's, and work (+)", by: nodes },
    Check { number: 51, what: "modules, kexec, swap and the clock are out of reach", by: machine },
    Check {
        number: 52,
        what: "reboot inside restarts the sandbox, power-off ends it, and both are reported",
        by: reboot,
    },
    Check { number: 53, what: "files take any owner of the 65536; so do /proc and /sys", by: owners },
    Check { number: 54, what: "binfmt_misc is the sandbox's own; 32-bit programs run", by: binaries },
    Check { number: 70, what: "the OOM score goes from -999 to 1000", by: oom_score },
];

fn mknod(stage: &Stage) -> Checked {
    stage.refused(
        ONE,
        &["mknod /root/n c 1 3", "mknod /root/n b 8 0", "mknod /dev/n c 1 1", "unshare -Urm mknod /root/n c 1 3"],
    )?;
    stage.sh(ONE, "mkfifo /root/fifo; rm /root/fifo").map(|_| ())
}

fn nodes(stage: &Stage) -> Checked {
    let names = "null zero full random urandom tty fuse net/tun";
    let owners = stage.sh(ONE, &format!("cd /dev; stat -L -c '%u:%g %F' {names} | sort -u"))?;
    equal("owners", &owners, "0:0 character special file")?;
    stage
        .sh(ONE, "echo x > /dev/null; for n in zero urandom random; do test $(head -c 9 /dev/$n | wc -c) = 9; done")?;
    let done = stage.yard.garth(&["exec", "-t", ONE, "--", "sh", "-c", "echo from-the-terminal > /dev/tty"]);
    ensure(done.code == 0 && done.text().contains("from-the-terminal"), "/dev/tty does not work")?;
    let tun = "import fcntl\nfd = os.open('/dev/net/tun', os.O_RDWR)\n\
               fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH22x', b'tap7', 0x1002))\n\
               want(True, os.path.exists('/sys/class/net/tap7'))";
    stage.python(ONE, tun)?;
    stage.python(ONE, "os.open('/dev/fuse', os.O_RDWR)").map(|_| ())
}

fn machine(stage: &Stage) -> Checked {
    // init_module, finit_module, delete_module, kexec_load, kexec_file_load, swapon, settimeofday, clock_settime
    let program = "for number, arguments in [(175, (0, 0, b'')), (313, (0, b'', 0)), (176, (b'x', 0)), (246, (0, 0, 0, 0)),\n\
                   (320, (0, 0, 0, b'', 0)), (167, (b'/dev/zero', 0)), (164, (bytes(16), 0)), (227, (0, bytes(16)))]:\n\
                   \x20   got = call(number, *arguments)\n    if got not in ('-EPERM', '-ENOSYS'): sys.exit(f'{number}: {got}')";
    stage.python(ONE, program)?;
    stage.refused(ONE, &["date -s 2001-01-01", "dmesg"])
}

fn reboot(stage: &Stage) -> Checked {
    let call = |name: &str, command: &str| {
        let program = format!(
            "import ctypes; ctypes.CDLL(None).syscall(169, ctypes.c_long(0xfee1dead), 672274793, {command}, 0)"
        );
        stage.exec(name, &["python3", "-c", &program]);
    };
    let reason = |name: &str| stage.about(name)["ended"]["reason"].as_str().unwrap_or_default().to_owned();
    stage.with_own("rebooted", |name| {
        stage.sh(name, "echo kept > /root/kept; echo gone > /run/gone")?;
        let first = stage.init(name)?;
        call(name, RESTART);
        eventually("it runs again", || stage.init(name).is_ok_and(|init| init != first));
        equal("what is reported", &reason(name), "rebooted")?;
        equal("its files", &stage.sh(name, "cat /root/kept; test ! -e /run/gone")?, "kept")?;
        call(name, POWER_OFF);
        eventually("it ends", || stage.about(name)["state"] == "stopped");
        equal("what is reported", &reason(name), "powered_off")?;
        equal("the next command", &stage.sh(name, "cat /root/kept")?, "kept")
    })
}

/// LINUX_REBOOT_CMD_RESTART and LINUX_REBOOT_CMD_POWER_OFF.
const RESTART: &str = "0x01234567";
const POWER_OFF: &str = "0x4321fedc";

fn owners(stage: &Stage) -> Checked {
    let line = "f=/root/owned; touch $f; chown 1000:60000 $f; stat -c %u:%g $f; rm $f";
    equal("a file's owner", &stage.sh(ONE, line)?, "1000:60000")?;
    stage.refused(ONE, &["chown 0:0 /proc", "chown 0:0 /sys"])?;
    fail(
        "files do; of /proc and /sys, whose files are the host's root's, the kernel refuses with EPERM and EROFS; faking it would hold back every chown",
    )
}

fn binaries(stage: &Stage) -> Checked {
    let register = "mkdir -p /root/fmt; mount -t binfmt_misc b /root/fmt; \
                    echo ':garth:M::GARTH!::/bin/cat:' > /root/fmt/register; \
                    printf 'GARTH! it ran' > /root/fmtd; chmod +x /root/fmtd; /root/fmtd; umount /root/fmt";
    let ran = stage.sh(ONE, register)?;
    equal("a registered format", &ran, "GARTH! it ran")?;
    let other = stage.sh(TWO, "printf 'GARTH! it ran' > /root/fmtd; chmod +x /root/fmtd; /root/fmtd 2>&1 || true")?;
    ensure(!other.contains("it ran"), "the other sandbox has it too")?;
    ensure(!std::path::Path::new("/proc/sys/fs/binfmt_misc/garth").exists(), "the host has it too")?;
    // exit(7) by int 0x80.
    let elf = "code = bytes.fromhex('b801000000bb07000000cd80')\n\
               head = b'\\x7fELF\\x01\\x01\\x01' + bytes(9) + struct.pack('<HHIIIIIHHHHHH', 2, 3, 1, 0x8054, 52, 0, 0, 52, 32, 1, 0, 0, 0)\n\
               load = struct.pack('<IIIIIIII', 1, 0, 0x8000, 0x8000, 84 + len(code), 84 + len(code), 5, 4096)\n\
               open('/root/i386', 'wb').write(head + load + code)\nos.chmod('/root/i386', 0o755)\nimport subprocess\n\
               print(subprocess.run(['/root/i386']).returncode)";
    match stage.python(ONE, elf)?.as_str() {
        "7" => Ok(()),
        _ => fail(
            "the formats are its own; a 32-bit program is ended by SIGSYS: the filter judges calls of the 64-bit entry, and the other has numbers and arguments of its own",
        ),
    }
}

fn oom_score(stage: &Stage) -> Checked {
    equal("upwards", &stage.sh(ONE, "echo 1000 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj")?, "1000")?;
    match stage.sh(ONE, "echo -999 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj") {
        Ok(score) => equal("downwards", &score, "-999"),
        Err(_) => fail("only upwards: a sandbox that spares itself has the host end its neighbours"),
    }
}
