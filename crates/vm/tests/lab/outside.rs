//! On the host: makes the machine that has KVM, and reads what it prints.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use garth_vm::guest::{Entry, Kind, archive};

use crate::inside::LARGEST;
use crate::world;

/// A machine that says nothing more hangs: two processors, one emulating the other.
const PATIENCE: Duration = Duration::from_secs(180);

/// Names a static agent, to be heard through the program.
const AGENT: &str = "GARTH_TEST_AGENT";

/// Makes a tap that belongs to a user, which busybox cannot.
const IP: &str = "/sbin/ip";

/// What gives the orders.
const INSIDE: &str = "inside::the_program_does_all_that_it_is_asked";

/// For the machine with KVM, in this order; what is built in has no file.
const MODULES: [&str; 5] = ["irqbypass", "ccp", "kvm", "kvm-amd", "tun"];

const OUTER: &str = "#!/busybox sh
exec >/dev/console 2>&1
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sys /sys
/busybox mount -t devtmpfs dev /dev
/busybox mkdir -p /tmp && /busybox mount -t tmpfs tmp /tmp
for module in /kvm/*.ko; do /busybox insmod $module || echo lab:failed $module; done
cd /tmp
PROGRAM RUST_BACKTRACE=0 LD_LIBRARY_PATH=/lib LAB_GUEST=/guest /lab --exact INSIDE --ignored --nocapture
echo lab:end $?
/busybox reboot -f
";

/// What the guest of the program under test does. The agent makes the mounts and loads the modules where there is one.
const INNER: &str = "#!/busybox sh
exec >/dev/console 2>&1
if [ -x /agent ]; then
  /agent guest </dev/console &
  until [ -e /sys/block/vdb ]; do /busybox usleep 20000; done
else
  /busybox mount -t proc proc /proc
  /busybox mount -t sysfs sys /sys
  /busybox mount -t devtmpfs dev /dev
  for module in /modules/*.ko; do /busybox insmod $module; done
fi
echo lab:words $(/busybox cat /proc/cmdline)
for disk in /sys/block/vd*; do
  echo lab:disk $(/busybox cat $disk/size) $(/busybox cat $disk/ro) $(/busybox cat $disk/serial)
done
echo lab:net $(/busybox cat /sys/class/net/*/address)
while true; do
  size=$(/busybox cat /sys/block/vda/size)
  [ $size -lt LARGEST ] || /busybox reboot -f
  echo lab:tick $size $(/busybox od -An -N16 -tx8 /dev/urandom)
  /busybox usleep 50000
done
";

/// Ends QEMU with the test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn firecracker_boots_saves_and_is_cloned() {
    run("firecracker_boots_saves_and_is_cloned", "GARTH_TEST_FIRECRACKER", "GARTH_FIRECRACKER");
}

#[test]
fn cloud_hypervisor_boots_saves_and_is_cloned() {
    let test = "cloud_hypervisor_boots_saves_and_is_cloned";
    run(test, "GARTH_TEST_CLOUD_HYPERVISOR", "GARTH_CLOUD_HYPERVISOR");
}

/// QEMU needs no machine around it: it translates on the host, in mounts of its own.
#[test]
fn qemu_boots_saves_and_is_cloned() {
    let test = "qemu_boots_saves_and_is_cloned";
    let Some(files) = Files::find(test) else { return };
    if !rustix::process::geteuid().is_root() {
        return println!("SKIP {test}: root");
    }
    let guest = tempfile::tempdir().expect("directory");
    std::fs::write(guest.path().join("vmlinux"), &files.vmlinux).expect("kernel");
    std::fs::write(guest.path().join("initrd.img"), &files.inner).expect("initrd");
    let this = std::env::current_exe().expect("this program");
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private"]).arg(this).args([
        "--exact",
        INSIDE,
        "--ignored",
        "--nocapture",
    ]);
    inside.env("LAB_GUEST", guest.path()).env_remove("GARTH_FIRECRACKER").env_remove("GARTH_CLOUD_HYPERVISOR");
    let output = inside.output().expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    said.lines().filter(|line| line.starts_with("lab:")).for_each(|line| println!("{line}"));
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn run(test: &str, given: &str, named: &str) {
    let Some(program) = std::env::var_os(given) else { return println!("SKIP {test}: {given} names no program") };
    if !Path::new(IP).exists() {
        return println!("SKIP {test}: {IP}");
    }
    let Some(files) = Files::find(test) else { return };
    let directory = tempfile::tempdir().expect("directory");
    let (kernel, initrd) = (directory.path().join("vmlinux"), directory.path().join("initrd.img"));
    std::fs::write(&kernel, &files.vmlinux).expect("kernel");
    std::fs::write(&initrd, outer(&files, Path::new(&program), named, directory.path())).expect("initrd");
    let said = boot(&kernel, &initrd);
    said.iter().filter(|line| line.starts_with("lab:")).for_each(|line| println!("{line}"));
    assert!(said.iter().any(|line| line == "lab:end 0"), "{said:#?}");
}

struct Files {
    busybox: Vec<u8>,
    vmlinux: Vec<u8>,
    inner: Vec<u8>,
}

impl Files {
    /// The guest's kernel and first files, with the script for `/init`: a later archive has the last word on a path.
    fn find(test: &str) -> Option<Self> {
        let artifacts = world::distribution(test)?;
        let busybox = world::busybox(test).filter(|_| world::is_installed("qemu-system-x86_64", test))?;
        let busybox = std::fs::read(busybox).expect("busybox");
        let agent = std::env::var_os(AGENT).map(|path| std::fs::read(path).expect("agent"));
        let inner = INNER.replace("LARGEST", &LARGEST.to_string());
        let mut script = vec![("busybox", &busybox[..]), ("init", inner.as_bytes())];
        script.extend(agent.as_deref().map(|agent| ("agent", agent)));
        let entry = |path: &str, kind| Entry { path: path.to_owned(), kind };
        let mut entries: Vec<_> = script.iter().map(|(path, content)| entry(path, Kind::Program(content))).collect();
        // The shell opens it for what runs in the background.
        entries.push(entry("dev/null", Kind::Device { major: 1, minor: 3 }));
        let script = archive(&entries);
        let inner = [std::fs::read(artifacts.initrd()).expect("initrd"), script].concat();
        Some(Self { busybox, vmlinux: std::fs::read(artifacts.vmlinux()).expect("kernel"), inner })
    }
}

/// The first files of the machine with KVM: all there is.
fn outer(files: &Files, program: &Path, named: &str, scratch: &Path) -> Vec<u8> {
    let agent = std::env::var_os(AGENT).map_or("", |_| " GARTH_TEST_AGENT=1");
    let script = OUTER.replace("PROGRAM", &format!("{named}=/vmm{agent}")).replace("INSIDE", INSIDE);
    let read = |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let this = std::env::current_exe().expect("this program");
    let programs = [("lab", this.as_path()), ("vmm", program), ("ip", Path::new(IP))];
    let mut owned: Vec<_> = programs.iter().map(|(name, path)| ((*name).to_owned(), read(path))).collect();
    for library in programs.iter().flat_map(|(_, path)| libraries(path)) {
        // The loader is where the program says; all else is looked for.
        let name = library.file_name().expect("a name").to_string_lossy().into_owned();
        let place = if name.starts_with("ld-linux") { "lib64" } else { "lib" };
        owned.push((format!("{place}/{name}"), read(&library)));
    }
    let modules = modules(scratch).into_iter().enumerate();
    let modules: Vec<_> = modules.map(|(at, module)| (format!("kvm/{at}.ko"), module)).collect();
    let directories = ["dev", "proc", "sys", "lib", "lib64", "guest", "kvm"];
    let entry = |path: &str, kind| Entry { path: path.to_owned(), kind };
    let mut entries: Vec<_> = directories.iter().map(|path| entry(path, Kind::Directory)).collect();
    entries.push(entry("dev/console", Kind::Device { major: 5, minor: 1 }));
    entries.push(entry("busybox", Kind::Program(&files.busybox)));
    entries.push(entry("init", Kind::Program(script.as_bytes())));
    entries.push(entry("guest/vmlinux", Kind::File(&files.vmlinux)));
    entries.push(entry("guest/initrd.img", Kind::File(&files.inner)));
    entries.extend(owned.iter().map(|(path, content)| entry(path, Kind::Program(content))));
    entries.extend(modules.iter().map(|(path, content)| entry(path, Kind::File(content))));
    archive(&entries)
}

fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().expect("ldd").stdout;
    let listed = String::from_utf8(listed).expect("text");
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    listed.lines().filter_map(path).collect()
}

/// Out of the package that the guest's kernel is from.
fn modules(scratch: &Path) -> Vec<Vec<u8>> {
    let tree = scratch.join("package");
    for package in std::fs::read_dir(world::data_dir().join("guest/packages")).expect("packages").flatten() {
        let unpacked = Command::new("dpkg-deb").arg("-x").arg(package.path()).arg(&tree).status();
        assert!(unpacked.expect("dpkg-deb").success());
    }
    let find = |name: &str| Command::new("find").arg(&tree).args(["-name", &format!("{name}.ko.xz")]).output();
    let found = MODULES.iter().map(|name| String::from_utf8(find(name).expect("find").stdout).expect("text"));
    found.filter(|path| !path.is_empty()).map(|path| unpack(Path::new(path.trim_end()))).collect()
}

fn unpack(module: &Path) -> Vec<u8> {
    let mut content = Vec::new();
    let packed = std::fs::File::open(module).expect("module");
    std::io::copy(&mut lzma_rust2::XzReader::new(packed, true), &mut content).expect("xz");
    content
}

fn boot(kernel: &Path, initrd: &Path) -> Vec<String> {
    let khz = garth_kernel::tsc::khz();
    let words = format!(
        "console=ttyS0 quiet reboot=t panic=-1 mitigations=off no_timer_check tsc=reliable tsc_early_khz={khz} lpj={} \
         clearcpuid=cx16",
        khz * 4
    );
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "EPYC,+svm,+npt", "-m", "2000", "-smp", "2"]);
    command.args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", &words]);
    let mut machine = Machine(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("qemu"));
    let stdout = machine.0.stdout.take().expect("stdout");
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let _ = sender.send(String::from_utf8_lossy(&line).trim().to_owned());
        }
    });
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => said.push(line),
            Err(RecvTimeoutError::Disconnected) => return said,
            Err(RecvTimeoutError::Timeout) => panic!("the machine hangs after {said:#?}"),
        }
    }
}
