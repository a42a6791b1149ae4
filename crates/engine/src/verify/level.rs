//! What each level has to show. Written down apart from the code that makes sandboxes, so that a mistake there is seen
//! here.

use garth_spec::{Handler, ProbeCall};
use garth_verify::tries::{DEVICES, MORE_DEVICES};

/// What is expected of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// The kernel refuses.
    Refused,
    /// It works.
    Works,
}

/// Whose user ids the sandbox's are on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Users {
    /// The host's own.
    Hosts,
    /// As many of its own, from this one on at the least.
    Own { from: u64, count: u64 },
}

/// The boundary of one level.
#[derive(Debug, Clone)]
pub(super) struct Level {
    pub(super) users: Users,
    /// Capabilities that a process may have at most, as in `/proc/PID/status`.
    pub(super) capabilities: u64,
    /// Namespaces that are not the host's.
    pub(super) namespaces: &'static [&'static str],
    /// System calls that are refused.
    pub(super) refused: &'static [ProbeCall],
    pub(super) mount: Expect,
    pub(super) user_namespace: Expect,
    /// Mounts that root inside cannot make writable.
    pub(super) read_only: &'static [&'static str],
    /// Character devices that may be in `/dev`.
    pub(super) devices: &'static [(u32, Option<u32>)],
    /// Below these directories may be something of the host's: devices, or files that cannot be written.
    pub(super) of_the_host: &'static [&'static str],
    /// Where something is mounted; `None` where the sandbox may mount for itself.
    pub(super) mounts: Option<&'static [&'static str]>,
    /// Whether root inside can look into the init: where that is executed in the sandbox's user namespace, it can.
    pub(super) init: Expect,
    /// Whether `/proc` shows the sandbox's numbers instead of the machine's.
    pub(super) own_numbers: bool,
}

impl Level {
    /// The level that a handler is held to.
    pub(super) fn of(handler: Handler) -> Self {
        match handler {
            Handler::DefaultNative => DEFAULT,
            Handler::SysboxNative => SYSBOX,
            Handler::SysboxRunc => SYSBOX_RUNC,
            Handler::MicrovmQemu | Handler::MicrovmFirecracker | Handler::MicrovmCloudHypervisor => MICROVM,
        }
    }
}

/// CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP: Docker's set without
/// MKNOD, NET_RAW and AUDIT_WRITE.
const FEW: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 31;

/// `default`: root is the host's root, so everything dangerous is refused.
const DEFAULT: Level = Level {
    users: Users::Hosts,
    capabilities: FEW,
    namespaces: &["mnt", "pid", "net", "ipc", "uts", "cgroup"],
    refused: &[
        ProbeCall::Bpf,
        ProbeCall::PerfEventOpen,
        ProbeCall::Keyctl,
        ProbeCall::IoUringSetup,
        ProbeCall::OpenByHandleAt,
        ProbeCall::Userfaultfd,
    ],
    mount: Expect::Refused,
    user_namespace: Expect::Refused,
    read_only: &["/proc/sys", "/sys"],
    devices: DEVICES,
    of_the_host: &[],
    mounts: Some(&["/", "/usr", "/proc", "/sys", "/dev", "/run"]),
    init: Expect::Refused,
    own_numbers: false,
};

/// `sysbox`: root is nobody on the host, and may do within its user namespace what root does.
const SYSBOX: Level = Level {
    users: Users::Own { from: 65_536, count: 65_536 },
    capabilities: u64::MAX,
    namespaces: &["mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time"],
    refused: &[
        ProbeCall::Bpf,
        ProbeCall::PerfEventOpen,
        ProbeCall::IoUringSetup,
        ProbeCall::OpenByHandleAt,
        ProbeCall::Userfaultfd,
    ],
    mount: Expect::Works,
    user_namespace: Expect::Works,
    read_only: &["/sys"],
    devices: MORE_DEVICES,
    of_the_host: &[],
    mounts: None,
    init: Expect::Refused,
    own_numbers: true,
};

/// `sysbox` by Sysbox: it shows the machine's memory and processors, lets root write to what the kernel lets it in /sys,
/// shows device nodes and the kernel's modules and headers of the host, and has time namespaces since 2026 only.
const SYSBOX_RUNC: Level = Level {
    namespaces: &["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"],
    read_only: &[],
    of_the_host: &["/dev/", "/lib/modules/", "/usr/lib/modules/", "/usr/src/"],
    init: Expect::Works,
    own_numbers: false,
    ..SYSBOX
};

/// `microvm`: what is held to this is the hypervisor in its jail. Inside is another kernel, and nothing to refuse.
const MICROVM: Level = Level { capabilities: 0, refused: &[], read_only: &[], devices: &[], mounts: None, ..DEFAULT };
