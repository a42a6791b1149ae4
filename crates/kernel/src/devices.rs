//! Which character devices the processes of a cgroup may use, on cgroup v2: a BPF program (`bpf(2)`,
//! BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15).
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A character device: its major number and, unless all are meant, its minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: Option<u32>,
}

/// Lets the processes of a cgroup and all below it use these character devices and no others, block devices none. A
/// rule set before is replaced. Needs CAP_SYS_ADMIN (CAP_BPF does not do before 5.8).
pub fn allow_only(cgroup: BorrowedFd<'_>, devices: &[Device]) -> io::Result<()> {
    let program = load(&program(devices))?;
    let attach = Attach {
        target: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        kind: CGROUP_DEVICE,
        // Neither to be overridden nor joined by a program below.
        flags: 0,
    };
    bpf(PROG_ATTACH, &attach).map(drop)
}

// linux/bpf.h
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const TYPE_CHARACTER: i32 = 2;

/// The start of `union bpf_attr` for PROG_LOAD; what is not here is zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct Attach {
    target: i32,
    program: i32,
    kind: u32,
    flags: u32,
}

/// `struct bpf_insn`; the registers are four bits each, destination low.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

/// `*(u32 *)(r1 + offset)` into a register: the context is access and type, major, minor.
const fn load_field(register: u8, offset: i16) -> Instruction {
    instruction(0x61, register | 1 << 4, offset, 0)
}

/// Skips so many instructions unless the register holds this.
const fn unless_equal(register: u8, value: i32, skip: i16) -> Instruction {
    instruction(0x55, register, skip, value)
}

const fn answer(value: i32) -> [Instruction; 2] {
    [instruction(0xb7, 0, 0, value), instruction(0x95, 0, 0, 0)]
}

fn program(devices: &[Device]) -> Vec<Instruction> {
    const TYPE: u8 = 2;
    const MAJOR: u8 = 3;
    const MINOR: u8 = 4;
    let mut code = vec![
        load_field(TYPE, 0),
        // The low half is the type, the high half the access.
        instruction(0x57, TYPE, 0, 0xffff),
        load_field(MAJOR, 4),
        load_field(MINOR, 8),
        unless_equal(TYPE, TYPE_CHARACTER, 0),
    ];
    let first = code.len();
    for device in devices {
        match device.minor {
            Some(minor) => {
                code.extend([unless_equal(MAJOR, device.major as i32, 3), unless_equal(MINOR, minor as i32, 2)]);
            }
            None => code.push(unless_equal(MAJOR, device.major as i32, 2)),
        }
        code.extend(answer(1));
    }
    code[first - 1].offset = (code.len() - first) as i16;
    code.extend(answer(0));
    code
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attr = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let fd = bpf(PROG_LOAD, &attr)?;
    // SAFETY: PROG_LOAD succeeded and so returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `T` is one of the two argument layouts above, as the command wants.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is a live `repr(C)` value of the size given; the pointers in it (program, license) live through
    // the call, as its callers borrow what they point to. The kernel reads only.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *const T, size_of::<T>()) };
    match i32::try_from(result) {
        Ok(fd) if fd >= 0 => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    const NULL: Device = Device { major: 1, minor: Some(3) };

    #[test]
    fn every_jump_lands_inside() {
        let code = program(&[NULL, Device { major: 136, minor: None }]);
        for (at, op) in code.iter().enumerate() {
            assert!(at + 1 + op.offset as usize <= code.len() || op.code == 0x61, "{at}: {op:?}");
        }
        // Anything but a character device goes straight to the refusal.
        assert_eq!(&code[5 + code[4].offset as usize..], answer(0));
    }

    /// A cgroup v2 directory that goes when the test ends.
    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    fn scratch() -> Option<Scratch> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
        let dir = Path::new(root).join(format!("garth-devices-test-{}", std::process::id()));
        std::fs::create_dir(&dir).ok()?;
        Some(Scratch(dir))
    }

    #[test]
    fn devices_that_are_not_listed_cannot_be_opened() {
        let Some(scratch) = scratch() else { return eprintln!("SKIP devices: no cgroup v2 mount, or no root") };
        let dir = File::open(&scratch.0).expect("cgroup");
        for _ in 0..2 {
            allow_only(dir.as_fd(), &[NULL]).expect("a rule, and again in its place");
        }
        let join = format!("echo $$ > {}/cgroup.procs", scratch.0.display());
        let run = |script: &str| {
            Command::new("/bin/sh").args(["-c", &format!("{join}; {script}")]).status().expect("sh").success()
        };
        assert!(run("head -c 1 < /dev/null"));
        assert!(!run("head -c 1 < /dev/zero"));
    }
}
