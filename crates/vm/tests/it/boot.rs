//! The files as they were made, in QEMU without KVM. Behind the initrd stands a second archive with a script and a shell
//! to run it: the kernel unpacks one after the other.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use garth_vm::guest::{Artifacts, Entry, Kind, archive};

use crate::world;

/// A guest that says nothing more hangs.
const PATIENCE: Duration = Duration::from_secs(60);

const SCRIPT: &str = "#!/busybox sh
exec >/dev/console 2>&1
echo garth:up
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sys /sys
/busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do /busybox insmod $module || echo garth:failed $module; done
echo garth:modules $(/busybox cut -d' ' -f1 /proc/modules)
echo garth:disk $(/busybox cat /sys/block/vda/serial)
echo garth:port $(/busybox cat /sys/class/virtio-ports/*/name)
echo garth:filesystems $(/busybox grep -E 'erofs|overlay|ext4|virtiofs' /proc/filesystems)
echo garth:mode $(/busybox stat -c %a /init) $(/busybox ls -d /newroot)
echo garth:end
/busybox reboot -f
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
fn the_files_boot_on_a_machine_without_pci() {
    let machine = ["-M", "microvm,acpi=on,pit=off,pic=off", "-global", "virtio-mmio.force-legacy=false"];
    boots("the_files_boot_on_a_machine_without_pci", &machine, "device");
}

#[test]
fn the_files_boot_on_a_machine_with_pci() {
    boots("the_files_boot_on_a_machine_with_pci", &["-M", "q35"], "pci");
}

fn boots(test: &str, machine: &[&str], bus: &str) {
    let (Some(artifacts), true) = (world::distribution(test), world::is_installed("qemu-system-x86_64", test)) else {
        return;
    };
    let Some(busybox) = world::busybox(test) else { return };
    let directory = tempfile::tempdir().expect("directory");
    let initrd = with_script(artifacts, &busybox, directory.path());
    let begun = Instant::now();
    let (said, times) = run(artifacts, &initrd, machine, bus);
    println!("{test}: up after {:?}, end after {:?}", times.0.duration_since(begun), times.1.duration_since(begun));
    let line = |word: &str| said.iter().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).unwrap_or_default();
    let mut loaded: Vec<&str> = line("garth:modules").split(' ').collect();
    loaded.reverse();
    assert_eq!(loaded, artifacts.manifest().modules, "{said:#?}");
    assert_eq!(line("garth:disk"), "base", "{said:#?}");
    assert_eq!(line("garth:port"), "agent0", "{said:#?}");
    for filesystem in ["erofs", "overlay", "ext4", "virtiofs"] {
        assert!(line("garth:filesystems").contains(filesystem), "{filesystem}: {said:#?}");
    }
    assert_eq!(line("garth:mode"), "755 /newroot");
    assert!(!said.iter().any(|line| line.starts_with("garth:failed")), "{said:#?}");
}

fn with_script(artifacts: &Artifacts, busybox: &Path, directory: &Path) -> std::path::PathBuf {
    let busybox = std::fs::read(busybox).expect("busybox");
    let mut initrd = std::fs::read(artifacts.initrd()).expect("initrd");
    let entry = |path: &str, content| Entry { path: path.into(), kind: Kind::Program(content) };
    initrd.extend(archive(&[entry("busybox", &busybox), entry("script", SCRIPT.as_bytes())]));
    let path = directory.join("initrd.img");
    std::fs::write(&path, initrd).expect("initrd");
    path
}

/// What the guest said, and when its program began and ended.
fn run(artifacts: &Artifacts, initrd: &Path, machine: &[&str], bus: &str) -> (Vec<String>, (Instant, Instant)) {
    let disk = tempfile::NamedTempFile::new().expect("disk");
    disk.as_file().set_len(64 << 20).expect("disk");
    let khz = khz();
    let kernel = format!(
        "console=ttyS0 quiet reboot=t panic=-1 mitigations=off no_timer_check tsc=reliable tsc_early_khz={khz} lpj={} \
         rdinit=/script",
        khz * 4
    );
    let mut command = Command::new("qemu-system-x86_64");
    command.args(machine).args(["-accel", "tcg", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]);
    command.args(["-m", "256", "-smp", "1", "-serial", "stdio", "-append", &kernel]);
    command.arg("-kernel").arg(artifacts.vmlinux()).arg("-initrd").arg(initrd);
    command.args(["-drive", &format!("if=none,id=base,format=raw,file={}", disk.path().display())]);
    command.args(["-device", &format!("virtio-blk-{bus},drive=base,serial=base")]);
    command.args(["-device", &format!("virtio-serial-{bus}"), "-chardev", "null,id=agent"]);
    command.args(["-device", "virtserialport,chardev=agent,name=agent0", "-device", &format!("virtio-rng-{bus}")]);
    let mut machine = Machine(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("qemu"));
    let stdout = machine.0.stdout.take().expect("stdout");
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            // The firmware leaves its last words without an end of line.
            let line = line.find("garth:").map_or(line.clone(), |at| line[at..].to_owned());
            let _ = sender.send((line, Instant::now()));
        }
    });
    let (mut said, mut up) = (Vec::new(), Instant::now());
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok((line, at)) if line == "garth:end" => return (said, (up, at)),
            Ok((line, at)) => {
                up = if line == "garth:up" { at } else { up };
                said.push(line);
            }
            Err(RecvTimeoutError::Timeout) => panic!("the guest hangs after {said:#?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the guest ended after {said:#?}"),
        }
    }
}

fn khz() -> u64 {
    let processors = std::fs::read_to_string("/proc/cpuinfo").expect("cpuinfo");
    let line = processors.lines().find(|line| line.starts_with("cpu MHz")).expect("cpu MHz");
    let mhz: f64 = line.rsplit(": ").next().and_then(|mhz| mhz.trim().parse().ok()).expect("a number");
    (mhz * 1000.0) as u64
}
