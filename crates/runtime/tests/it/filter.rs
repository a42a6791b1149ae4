//! The system call filter, from inside.
use crate::support::{python, run};
use crate::yard;

const PRELUDE: &str = "import ctypes,errno\nlibc=ctypes.CDLL(None,use_errno=True)\n\
    def call(*a):\n    ctypes.set_errno(0)\n    r=libc.syscall(*[ctypes.c_long(x) for x in a])\n    return errno.errorcode.get(ctypes.get_errno(),'ok')\n";

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    let yard = yard!();
    let sandbox = yard.start();
    for (call, expected) in cases {
        let got = python(&sandbox, &format!("{PRELUDE}print(call({call}))"));
        assert_eq!(got, *expected, "syscall({call})");
    }
    sandbox.destroy().expect("destroy");
}

#[test]
fn calls_into_more_of_the_kernel_are_refused() {
    check(&[
        ("321,0,0,0", "EPERM"),       // bpf
        ("298,0,0,-1,-1,0", "EPERM"), // perf_event_open
        ("323,0", "EPERM"),           // userfaultfd
        ("425,1,0", "ENOSYS"),        // io_uring_setup
        ("250,0,-3,0", "ENOSYS"),     // keyctl
        ("248,0,0,0,0,0", "ENOSYS"),  // add_key
        ("304,-100,0,0", "EPERM"),    // open_by_handle_at
        ("246,0,0,0,0", "EPERM"),     // kexec_load
        ("313,0,0,0", "EPERM"),       // finit_module
        ("308,0,0", "EPERM"),         // setns
        ("428,-100,0,1", "EPERM"),    // open_tree
        ("430,0,0", "EPERM"),         // fsopen
        ("442,0,0,0,0,0", "EPERM"),   // mount_setattr
        ("154,0,0,0", "ENOSYS"),      // modify_ldt
        ("169,0,0,0", "EPERM"),       // reboot
        ("103,10,0,0", "EPERM"),      // syslog
    ]);
}

#[test]
fn new_namespaces_are_refused_by_every_call() {
    check(&[
        ("435,0,0", "ENOSYS"),              // clone3, so that programs use clone
        ("56,0x10000011,0,0,0,0", "EPERM"), // clone, user
        ("56,0x20011,0,0,0,0", "EPERM"),    // clone, mount
        ("272,0x10000000", "EPERM"),        // unshare, user
        ("272,0x80", "EPERM"),              // unshare, time
        ("272,0x400", "ok"),                // unshare, descriptors
    ]);
}

#[test]
fn sockets_are_unix_and_internet_only() {
    check(&[
        ("41,1,1,0", "ok"),                        // unix
        ("41,2,1,0", "ok"),                        // IPv4
        ("41,10,2,0", "ok"),                       // IPv6
        ("41,16,3,0", "ok"),                       // route netlink
        ("41,40,1,0", "EAFNOSUPPORT"),             // vsock: the hypervisor
        ("41,38,5,0", "EAFNOSUPPORT"),             // AF_ALG
        ("41,17,3,0", "EAFNOSUPPORT"),             // packet
        ("41,16,3,12", "EAFNOSUPPORT"),            // netfilter netlink
        ("41,16,3,9", "EAFNOSUPPORT"),             // audit netlink
        ("41,2,1,132", "EPROTONOSUPPORT"),         // SCTP
        ("41,2,0x80005,0", "EPROTONOSUPPORT"),     // SCTP, by type, with a flag
        ("41,10,6,33", "EPROTONOSUPPORT"),         // DCCP
        ("41,0x100000000+40,1,0", "EAFNOSUPPORT"), // the same with a dirty upper half
    ]);
}

#[test]
fn a_terminal_cannot_be_typed_into() {
    check(&[
        ("16,0,0x5412,0", "EPERM"),
        ("16,0,0x100005412,0", "EPERM"),
        ("16,0,0x541c,0", "EPERM"),
        ("16,0,0x5423,0", "EPERM"),
    ]);
}

#[test]
fn subvolumes_outside_the_quota_cannot_be_made() {
    // On no descriptor at all: the filter answers before the kernel looks (EBADF).
    check(&[
        ("16,-1,0x5000940e,0", "ENOTTY"), // BTRFS_IOC_SUBVOL_CREATE
        ("16,-1,0x50009417,0", "ENOTTY"), // BTRFS_IOC_SNAP_CREATE_V2
        ("16,-1,0x40049409,0", "EBADF"),  // FICLONE
    ]);
}

#[test]
fn odd_execution_domains_are_refused() {
    check(&[("135,0x400000", "EPERM"), ("135,0xffffffff", "ok"), ("135,0x40000", "ok")]);
}

#[test]
fn unknown_calls_are_as_if_the_kernel_were_older() {
    check(&[("600", "ENOSYS"), ("0x40000000+39", "ENOSYS")]);
}

#[test]
fn the_entry_for_32_bit_programs_ends_the_process() {
    let yard = yard!();
    let sandbox = yard.start();
    // mov eax, 20 (getpid of i386); int 0x80; ret
    let script = "import ctypes,mmap\nm=mmap.mmap(-1,4096,prot=7)\nm.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\n\
                  ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()";
    let reply = run(&sandbox, &["/usr/bin/python3", "-c", script]);
    assert_eq!(reply.code, 128 + 31, "SIGSYS: {}", reply.err);
    sandbox.destroy().expect("destroy");
}
