//! A program in a jail, in the place of a hypervisor that its guest took over.
use std::io::Read;
use std::os::fd::AsFd;

use garth_kernel::{netns, tap};
use garth_runtime::jail::{Access, Given, JailPlan, Shown};
use garth_runtime::{ErrorKind, Sandbox};
use garth_spec::{ByteSize, Limits};

use crate::support::{Yard, chain, fresh_id};
use crate::yard;

/// Tells what it can see and do as the program in the jail, on the descriptor that came along.
const LOOK: &str = r#"
import ctypes, json, os, socket, sys
def tries(what):
    try: return what() or True
    except OSError as error: return error.errno
def connects(address):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect(address)
libc = ctypes.CDLL(None, use_errno=True)
def mounts():
    if libc.mount(b"none", b"/own", b"tmpfs", 0, None): raise OSError(ctypes.get_errno(), "mount")
def unshares(what):
    if libc.unshare(what): raise OSError(ctypes.get_errno(), "unshare")
def calls(number, *arguments):
    if libc.syscall(number, *arguments) < 0: raise OSError(ctypes.get_errno(), "syscall")
found = {
    "files": sorted(os.listdir("/")), "pid": os.getpid(), "ids": [os.getuid(), os.getgid(), os.getgroups()],
    "fds": len([fd for fd in range(64) if tries(lambda: bool(os.fstat(fd))) is True]),
    "secret": tries(lambda: os.stat(sys.argv[2]) and True), "root": tries(lambda: open("/x", "w") and True),
    "own": tries(lambda: open("/own/x", "w") and True), "read-only": tries(lambda: open("/usr/x", "w") and True),
    "mount": tries(mounts), "unshare": tries(lambda: unshares(0x00020000)), "setuid": tries(lambda: os.setuid(0)),
    "host": tries(lambda: connects(("127.0.0.1", int(sys.argv[3])))), "kill": tries(lambda: os.kill(int(sys.argv[4]), 0)),
    # What needs no privilege, and only the filter stops: a user namespace, add_key(2), io_uring_setup(2).
    "users": tries(lambda: unshares(0x10000000)), "keys": tries(lambda: calls(248, b"user", b"x", b"x", 1, -3)),
    "ring": tries(lambda: calls(425, 1, bytes(120))), "vsock": tries(lambda: socket.socket(40).close()),
    "links": [name for _, name in socket.if_nameindex()],
}
os.write(int(sys.argv[1]), json.dumps(found).encode())
os.close(int(sys.argv[1]))
import signal; signal.pause()
"#;

fn shown(path: &str, access: Access) -> Shown {
    Shown { from: path.into(), at: path.into(), access }
}

fn plan(arguments: &[&str]) -> JailPlan {
    JailPlan {
        program: "/usr/bin/python3".to_owned(),
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        shown: ["/usr", "/lib", "/lib64"].into_iter().map(|path| shown(path, Access::Run)).collect(),
        limits: Limits { memory: ByteSize::mib(64), pids: 16, ..Limits::default() },
    }
}

/// Starts a program that writes to the one descriptor it gets; what it wrote, up to its closing that.
fn start(yard: &Yard, mut plan: JailPlan) -> Result<(Sandbox, String), garth_runtime::Error> {
    let jail = yard.sandboxes().new_jail(fresh_id())?;
    plan.shown.push(Shown { from: jail.own(), at: "/own".into(), access: Access::Write });
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let errors = std::fs::File::options().write(true).open("/dev/null").expect("null");
    let given = Given { fds: &[writer.as_fd()], netns: None, output: None, errors: errors.into() };
    let sandbox = jail.start(&plan, given)?;
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("read");
    Ok((sandbox, said))
}

#[test]
fn a_jailed_program_sees_and_reaches_nothing_but_its_own() {
    let yard = yard!();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("address").port().to_string();
    let secret = yard.dir.path().join("secret").display().to_string();
    let pid = std::process::id().to_string();
    let (sandbox, said) =
        start(&yard, plan(&["-c", LOOK, "%fd0%", &secret, &port, &pid])).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let found: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    let user = found["ids"][0].as_u64().expect("a user");
    assert!(user >= 65_536, "{found}");
    assert_eq!(found["ids"], serde_json::json!([user, user, []]));
    assert_eq!(found["files"], serde_json::json!(["lib", "lib64", "own", "usr"]));
    // Three to standard streams, the claim on its user, and the one that came along.
    assert_eq!(found["fds"], 5, "{found}");
    assert_eq!((&found["pid"], &found["links"]), (&1.into(), &serde_json::json!(["lo"])));
    let outside = ["secret", "root", "read-only", "mount", "unshare", "setuid", "host", "kill"];
    for denied in outside.into_iter().chain(["users", "keys", "ring", "vsock"]) {
        assert!(found[denied].is_number(), "{denied}: {found}");
    }
    assert_eq!(found["own"], true, "{found}");
    sandbox.destroy().expect("destroy");
}

/// Opens a tap by name, and says on its output whether that worked.
const ATTACH: &str = r#"
import errno, fcntl, os, socket, struct
def attaches(name):
    tun = os.open("/dev/net/tun", os.O_RDWR)
    try: return fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH22x", name, 0x5002)) and "yes"
    except OSError as error: return errno.errorcode[error.errno]
links = sorted(name for _, name in socket.if_nameindex())
print(attaches(b"tap0"), attaches(b"tap1"), *links, oct(os.stat("/dev/net/tun").st_mode), flush=True)
import signal; os.close(1); signal.pause()
"#;

#[test]
fn a_jailed_program_joins_a_network_where_one_tap_is_its_own() {
    let yard = yard!();
    let netns = netns::with_loopback(|| Ok(())).expect("netns");
    let jail = yard.sandboxes().new_jail(fresh_id()).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let user = jail.user();
    std::thread::scope(|scope| {
        let make = || {
            netns::enter(netns.as_fd()).expect("enter");
            let taps = ["tap0", "tap1"].map(|name| tap::make(name).expect("tap"));
            taps.iter().zip([user, user + 1]).for_each(|(tap, user)| tap::give(tap.as_fd(), user).expect("give"));
        };
        scope.spawn(make).join().expect("taps");
    });
    let mut plan = plan(&["-c", ATTACH]);
    plan.shown.push(shown("/dev/net/tun", Access::Device));
    let (mut reader, output) = std::io::pipe().expect("pipe");
    let errors = output.try_clone().expect("pipe").into();
    let given = Given { fds: &[], netns: Some(netns.as_fd()), output: Some(output.into()), errors };
    let sandbox = jail.start(&plan, given).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&mut reader), &mut said).expect("read");
    assert_eq!(said.trim(), "yes EPERM lo tap0 tap1 0o20600");
    sandbox.destroy().expect("destroy");
}

#[test]
fn a_jailed_program_counts_against_its_limits() {
    let yard = yard!();
    let hog = "import os, sys\nos.write(int(sys.argv[1]), b'on ')\nx = bytearray(200 << 20)\nos.write(int(sys.argv[1]), b'off')";
    let (sandbox, said) = start(&yard, plan(&["-c", hog, "%fd0%"])).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!(said, "on ");
    assert!(sandbox.usage().expect("usage").oom_kills > 0);
    sandbox.destroy().expect("destroy");
}

#[test]
fn what_cannot_be_jailed_says_why_and_leaves_nothing() {
    let yard = yard!();
    let missing = JailPlan { program: "/usr/bin/no-such-program".to_owned(), ..plan(&[]) };
    let error = start(&yard, missing).map(drop).expect_err("started");
    assert!(
        matches!(&error.kind, ErrorKind::Step { step, .. } if step.contains("no-such-program")),
        "{}",
        chain(&error)
    );
    let mut hidden = plan(&[]);
    hidden.shown.push(shown("/no/such/file", Access::Read));
    let error = start(&yard, hidden).map(drop).expect_err("started");
    assert!(matches!(&error.kind, ErrorKind::Step { step, .. } if step.contains("/no/such/file")), "{}", chain(&error));
    let left = std::fs::read_dir(yard.dir.path().join("run")).expect("run").flatten();
    let left: Vec<_> = left.filter(|entry| !entry.file_name().to_string_lossy().starts_with(".warm")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_jail_is_found_again_and_swept() {
    let mut yard = yard!();
    let wait = "import os, sys, signal\nos.close(int(sys.argv[1]))\nsignal.pause()";
    let (sandbox, _) = start(&yard, plan(&["-c", wait, "%fd0%"])).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let (id, record) = (sandbox.id(), sandbox.record());
    drop(sandbox);
    yard.close();
    yard.open();
    let found = yard.sandboxes().recover(id, &record).expect("recover").expect("it runs");
    assert_eq!(yard.sandboxes().sweep(&[id]).expect("sweep").processes, 0);
    drop(found);
    yard.close();
    yard.open();
    assert_eq!(yard.sandboxes().sweep(&[]).expect("sweep").processes, 1);
    assert!(yard.sandboxes().recover(id, &record).expect("recover").is_none());
}
