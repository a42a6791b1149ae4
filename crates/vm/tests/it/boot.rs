//! The files as they were made boot, and the guest finds what it needs.

use std::time::Instant;

use crate::machine::{line, run, with_script};
use crate::world;

const SCRIPT: &str = "#!/busybox sh
exec >/dev/console 2>&1
echo garth:up
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sys /sys
/busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do /busybox insmod $module || echo garth:failed $module; done
echo garth:modules $(/busybox cut -d' ' -f1 /proc/modules)
echo garth:disk $(/busybox cat /sys/block/vda/serial)
until /busybox cat /sys/class/virtio-ports/*/name >/dev/null 2>&1; do :; done
echo garth:port $(/busybox cat /sys/class/virtio-ports/*/name)
echo garth:filesystems $(/busybox grep -E 'erofs|overlay|ext4|virtiofs' /proc/filesystems)
echo garth:mode $(/busybox stat -c %a /init) $(/busybox ls -d /newroot)
echo garth:end
/busybox reboot -f
";

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
    let Some((artifacts, busybox)) = world::guest(test) else { return };
    let directory = tempfile::tempdir().expect("directory");
    let initrd = with_script(artifacts, &busybox, SCRIPT, &[], directory.path());
    let disk = tempfile::NamedTempFile::new().expect("disk");
    disk.as_file().set_len(64 << 20).expect("disk");
    let disk = format!("if=none,id=base,format=raw,file={}", disk.path().display());
    let [block, serial, random] = ["blk", "serial", "rng"].map(|device| format!("virtio-{device}-{bus}"));
    let block = format!("{block},drive=base,serial=base");
    let devices = ["-drive", &disk, "-device", &block, "-device", &serial, "-chardev", "null,id=agent", "-device"];
    let devices = [&devices[..], &["virtserialport,chardev=agent,name=agent0", "-device", &random]].concat();
    let begun = Instant::now();
    let said = run(artifacts, &initrd, &[machine, &devices].concat());
    let after = said.iter().map(|(line, at)| format!("{} ms {line}", at.duration_since(begun).as_millis()));
    println!("{test}: {:#?}", after.collect::<Vec<_>>());
    let mut loaded: Vec<&str> = line(&said, "garth:modules").split(' ').collect();
    loaded.reverse();
    assert_eq!(loaded, artifacts.manifest().modules, "{said:#?}");
    assert_eq!(line(&said, "garth:disk"), "base", "{said:#?}");
    assert_eq!(line(&said, "garth:port"), "agent0", "{said:#?}");
    for filesystem in ["erofs", "overlay", "ext4", "virtiofs"] {
        assert!(line(&said, "garth:filesystems").contains(filesystem), "{filesystem}: {said:#?}");
    }
    assert_eq!(line(&said, "garth:mode"), "755 /newroot");
    assert!(!said.iter().any(|(line, _)| line.starts_with("garth:failed")), "{said:#?}");
}
