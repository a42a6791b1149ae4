//! QEMU with the kernel of Garth's guests and an init of busybox: what those are compared with.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use garth_kernel::tsc;
use garth_spec::Accelerator;

use crate::files;

/// Of guests of both kinds.
pub const MEMORY_MIB: u32 = 256;
/// What a line of shell may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// What Garth tells its QEMU, which without keeps as much translated code as there is.
const TCG: &str = "tcg,thread=single,tb-size=64";
const OFF: &str = "#!/bin/busybox sh\n/bin/busybox poweroff -f\n";
const SHELL: &str = include_str!("bare.sh");

/// QEMU, told what Garth tells it of the machine.
pub struct Bare {
    work: PathBuf,
    accelerator: Accelerator,
    /// Its init switches off at once.
    off: PathBuf,
    /// Its init is a shell.
    shell: PathBuf,
}

/// Where daemons keep what guests boot from.
pub fn cache() -> PathBuf {
    std::env::var_os("GARTH_CACHE_DIR").map_or_else(|| "/var/cache/garth".into(), PathBuf::from)
}

impl Bare {
    pub fn new(work: &Path, accelerator: Accelerator) -> Result<Self> {
        let off = initramfs(work, "off", &[("init", OFF)], "")?;
        let shell = initramfs(work, "shell", &[("init", SHELL), ("work.py", files::WORK)], "modules/*")?;
        Ok(Self { work: work.to_owned(), accelerator, off, shell })
    }

    /// From the program's start to its end, with no device but a console.
    pub fn life(&self) -> Result<Duration> {
        let begin = Instant::now();
        let ended = self.qemu(&self.off).status().context("qemu-system-x86_64")?;
        ensure!(ended.success(), "QEMU alone ended with {ended}");
        Ok(begin.elapsed())
    }

    /// A guest that listens.
    pub fn shell(&self, name: &str) -> Result<Shell> {
        self.shell_with(name, |_| {})
    }

    /// The same with the machine's own /usr, as guests of the image `host` have it, and an empty disk at /root.
    pub fn shell_with_disks(&self, name: &str) -> Result<Shell> {
        let disk = self.work.join(format!("{name}.ext4"));
        std::fs::File::create(&disk)?.set_len(2 << 30)?;
        let mut mkfs = Command::new("mke2fs");
        mkfs.args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1"]).arg(&disk);
        ensure!(mkfs.status().context("mke2fs")?.success(), "mke2fs failed");
        self.shell_with(name, |qemu| {
            drive(qemu, "usr", &cache().join("usr/usr.erofs"), "read-only=on");
            drive(qemu, "root", &disk, "discard=unmap,detect-zeroes=unmap");
        })
    }

    fn shell_with(&self, name: &str, more: impl FnOnce(&mut Command)) -> Result<Shell> {
        let socket = self.work.join(format!("{name}.sock"));
        let mut qemu = self.qemu(&self.shell);
        qemu.args(["-global", "virtio-mmio.force-legacy=false", "-device", "virtio-serial-device,max_ports=2"]);
        qemu.arg("-chardev").arg(format!("socket,id=port,server=on,wait=off,path={}", socket.display()));
        qemu.args(["-device", "virtserialport,chardev=port,name=bench"]);
        more(&mut qemu);
        let qemu = Guest(qemu.spawn().context("qemu-system-x86_64")?);
        let port = connect(&socket)?;
        std::fs::remove_file(&socket)?;
        port.set_read_timeout(Some(PATIENCE))?;
        let mut shell = Shell { qemu, port };
        shell.run(":").context("QEMU alone does not boot")?;
        Ok(shell)
    }

    fn qemu(&self, initrd: &Path) -> Command {
        let mut append = "console=ttyS0 quiet reboot=t panic=-1 i8042.noaux i8042.nokbd 8250.nr_uarts=1".to_owned();
        let accelerator = match self.accelerator {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accelerator::Tcg => {
                let khz = tsc::khz();
                append += &format!(" mitigations=off no_timer_check tsc=reliable tsc_early_khz={khz} lpj={}", khz * 4);
                append += " clearcpuid=cx16";
                ["-accel", TCG, "-cpu", "max"]
            }
        };
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
        qemu.args(["-machine", "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on,usb=off"]).args(accelerator);
        qemu.args(["-m", &format!("{MEMORY_MIB}M"), "-smp", "2", "-append", &append]);
        qemu.arg("-kernel").arg(cache().join("guest/current/vmlinux")).arg("-initrd").arg(initrd);
        qemu.stdin(Stdio::null()).stdout(Stdio::null());
        qemu
    }
}

/// A shell in a guest, on a virtio-serial port.
pub struct Shell {
    qemu: Guest,
    port: UnixStream,
}

impl Shell {
    pub fn pid(&self) -> u32 {
        self.qemu.0.id()
    }

    /// What a line of shell writes.
    pub fn run(&mut self, line: &str) -> Result<Vec<u8>> {
        const END: &[u8] = b"\nend\n";
        writeln!(self.port, "{line}; printf '\\nend\\n'")?;
        let (mut said, mut some) = (Vec::new(), vec![0; 64 << 10]);
        while !said.ends_with(END) {
            let length = self.port.read(&mut some).context("the guest's shell does not answer")?;
            ensure!(length > 0, "QEMU alone has ended");
            said.extend_from_slice(&some[..length]);
        }
        said.truncate(said.len() - END.len());
        Ok(said)
    }
}

struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Busybox, these scripts, and what matches of the files that Garth's guests begin with.
fn initramfs(work: &Path, name: &str, scripts: &[(&str, &str)], pattern: &str) -> Result<PathBuf> {
    let (root, initrd) = (work.join(name), work.join(format!("{name}.cpio")));
    std::fs::create_dir_all(root.join("bin"))?;
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox")?;
    for (name, script) in scripts {
        std::fs::write(root.join(name), script)?;
        std::fs::set_permissions(root.join(name), PermissionsExt::from_mode(0o755))?;
    }
    let script = "set -e; [ -z \"$1\" ] || busybox cpio -id \"$1\" < \"$2\"; find . | busybox cpio -o -H newc > \"$3\"";
    let mut cpio = Command::new("sh");
    cpio.args(["-c", script, "sh", pattern]).arg(cache().join("guest/current/initrd.img")).arg(&initrd);
    let made = cpio.current_dir(&root).output()?;
    ensure!(made.status.success(), "busybox makes no initramfs: {}", String::from_utf8_lossy(&made.stderr));
    Ok(initrd)
}

fn drive(qemu: &mut Command, name: &str, file: &Path, options: &str) {
    let file = file.display();
    qemu.arg("-blockdev").arg(format!("driver=raw,node-name={name},{options},file.driver=file,file.filename={file}"));
    qemu.arg("-device").arg(format!("virtio-blk-device,drive={name}"));
}

/// As soon as the program listens.
fn connect(socket: &Path) -> Result<UnixStream> {
    let begin = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                ensure!(begin.elapsed() < PATIENCE, "QEMU alone does not listen");
                std::thread::sleep(Duration::from_millis(5));
            }
            connected => return Ok(connected?),
        }
    }
}
