//! The probe where KVM works: in a guest whose processor, an emulated one, has AMD's virtualization.

use std::path::Path;
use std::process::Command;

use garth_vm::host::Verdict;

use crate::machine::{line, run, with_script};
use crate::world;

const SCRIPT: &str = "#!/busybox sh
exec >/dev/console 2>&1
/busybox mount -t devtmpfs dev /dev
echo garth:before $(/agent kvm-probe)
for module in irqbypass kvm kvm-amd; do /busybox insmod /$module.ko || echo garth:failed $module; done
echo garth:after $(/agent kvm-probe)
echo garth:end
/busybox reboot -f
";

#[test]
fn a_kvm_that_runs_guests_is_told_from_none() {
    let test = "a_kvm_that_runs_guests_is_told_from_none";
    let Some((artifacts, busybox)) = world::guest(test) else { return };
    if !world::is_installed("xz", test) {
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let unpacked = Command::new("dpkg-deb").arg("-x").arg(world::package()).arg(directory.path()).status();
    assert!(unpacked.expect("dpkg-deb").success());
    let kernel = directory.path().join("lib/modules").join(&artifacts.manifest().release).join("kernel");
    let module = |path: &str| decompressed(&kernel.join(path));
    let (bypass, kvm) = (module("virt/lib/irqbypass.ko.xz"), module("arch/x86/kvm/kvm.ko.xz"));
    let amd = module("arch/x86/kvm/kvm-amd.ko.xz");
    let files: [(&str, &[u8]); 4] = [
        ("irqbypass.ko", &bypass),
        ("kvm.ko", &kvm),
        ("kvm-amd.ko", &amd),
        // By another name: as /init it would be the guest's.
        ("agent", garth_agent_binary::AGENT),
    ];
    let initrd = with_script(artifacts, &busybox, SCRIPT, &files, directory.path());
    let said = run(artifacts, &initrd, &["-M", "q35", "-cpu", "EPYC,+svm,+npt"]);
    let verdict =
        |word: &str| serde_json::from_str::<Verdict>(line(&said, word)).unwrap_or_else(|_| panic!("{said:#?}"));
    assert_eq!(verdict("garth:before"), Verdict::NoKvm);
    assert_eq!(verdict("garth:after"), Verdict::KvmOk);
}

fn decompressed(path: &Path) -> Vec<u8> {
    let output = Command::new("xz").arg("-dc").arg(path).output().expect("xz");
    assert!(output.status.success(), "{}", path.display());
    output.stdout
}
