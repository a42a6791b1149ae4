//! Where the program runs: gives it orders.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use garth_spec::{ByteSize, Handler};
use garth_vm::{
    Accelerator, Begin, Drive, DriveAccess, DriveRate, ErrorKind, Machine, Nic, Snapshot, SnapshotFault, Vmm,
};
use rustix::mount::{MountFlags, mount, mount_remount};

use crate::jail::Jail;

/// In sectors, to tell the disks by.
const ROOT: u64 = 32 << 11;
const USR: u64 = 16 << 11;
/// A guest whose disk has grown to this reboots.
pub const LARGEST: u64 = 4 * ROOT;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// In MiB: less than a snapshot takes.
const ROOM: u32 = 32;

/// Where all of it is: the guest's files in `guest`, all else made here.
struct World {
    vmm: Vmm,
    machine: Machine,
    place: PathBuf,
}

impl World {
    fn new(handler: Handler, place: &Path) -> Self {
        let drive = |serial: &str, sectors: u64, access| {
            let file = place.join(serial);
            File::create(&file).and_then(|made| made.set_len(sectors << 9)).expect("disk");
            std::os::unix::fs::chown(&file, Some(1000), Some(1000)).expect("chown");
            Drive { serial: serial.to_owned(), file, access, rate: DriveRate::default() }
        };
        let vmm = Vmm::find(handler).expect("the program");
        let guest = PathBuf::from(std::env::var_os("LAB_GUEST").expect("the guest's files"));
        let emulates = vmm.capabilities().emulates;
        let machine = Machine {
            vcpus: 1,
            memory: ByteSize::mib(128),
            kernel: guest.join("vmlinux"),
            initrd: guest.join("initrd.img"),
            drives: vec![drive("root", ROOT, DriveAccess::ReadWrite), drive("usr", USR, DriveAccess::ReadOnly)],
            // That of QEMU takes a descriptor of a tap, which is the network's to make.
            nic: (!emulates).then_some(Nic { mac: MAC }),
            shares: Vec::new(),
            accelerator: if emulates { Accelerator::Tcg } else { Accelerator::Kvm },
        };
        Self { vmm, machine, place: place.to_owned() }
    }

    fn start(&self, machine: &Machine, begin: Begin<'_>, name: &str) -> Jail {
        Jail::start(&self.vmm, machine, begin, &self.place.join(name), ROOM)
    }

    /// The same machine with a copy of the disk that it writes.
    fn copy(&self, name: &str) -> Machine {
        let (mut machine, file) = (self.machine.clone(), self.place.join(format!("{name}-root")));
        std::fs::copy(&machine.drives[0].file, &file).expect("copy");
        std::os::unix::fs::chown(&file, Some(1000), Some(1000)).expect("chown");
        resize(&file, 2 * ROOT);
        machine.drives[0].file = file;
        machine
    }
}

/// What took how long, for the report.
fn timed<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = act();
    println!("lab:time {what} {:?}", begun.elapsed());
    result
}

#[test]
#[ignore = "a part of the lab"]
fn the_program_does_all_that_it_is_asked() {
    let is_named = |variable| std::env::var_os(variable).is_some();
    let handler = match (is_named("GARTH_FIRECRACKER"), is_named("GARTH_CLOUD_HYPERVISOR")) {
        (true, _) => Handler::MicrovmFirecracker,
        (_, true) => Handler::MicrovmCloudHypervisor,
        (false, false) => Handler::MicrovmQemu,
    };
    let scratch = tempfile::tempdir().expect("directory");
    let world = World::new(handler, scratch.path());
    println!("lab:version {}", world.vmm.version());
    if !world.vmm.capabilities().emulates {
        // The host's udev and administrator do that elsewhere.
        for device in ["/dev/kvm", "/dev/net/tun"] {
            std::os::unix::fs::chown(device, Some(1000), Some(1000)).expect(device);
        }
    }
    let (snapshot, last) = boot_and_save(&world);
    clones_differ(&world, &snapshot, &last);
    println!("lab:done");
}

/// Boots, changes, fails to save, saves; the last that the guest said before.
fn boot_and_save(world: &World) -> (Snapshot, String) {
    let World { vmm, machine, place } = world;
    let mut jail = timed("launch", || world.start(machine, Begin::Boot, "first"));
    let mut control = timed("connect", || jail.control(vmm));
    timed("start", || control.start(machine).expect("started"));
    let words = timed("first line", || jail.await_line("lab:words", |_| true));
    let disks = [jail.await_line("lab:disk", |_| true), jail.await_line("lab:disk", |_| true)];
    println!("lab:disks {disks:?}");
    tells_its_disks(&words, &disks);
    let addresses = jail.await_line("lab:net", |_| true);
    assert_eq!(addresses.contains("02:00:00:00:00:07"), machine.nic.is_some(), "{addresses}");
    jail.await_line("lab:tick", |_| true);
    reaches_the_guest(world, &mut jail);
    resize(&machine.drives[0].file, 2 * ROOT);
    control.resize_drive("root", ByteSize::mib(64)).expect("resized");
    jail.await_line("lab:tick", |tick| tick.starts_with(&format!("{} ", 2 * ROOT)));
    control.balloon(machine.memory, ByteSize::mib(112)).expect("smaller");
    control.balloon(machine.memory, machine.memory).expect("as large as it was");
    timed("pause", || control.pause().expect("paused"));
    let into = place.join("snapshot");
    std::fs::create_dir(&into).expect("directory");
    let options = std::ffi::CString::new(format!("size={ROOM}m")).expect("options");
    mount("into", &into, "tmpfs", MountFlags::empty(), options.as_c_str()).expect("a small disk");
    let error = timed("save without room", || control.save(machine, &into)).expect_err("no room");
    assert!(matches!(error.kind(), ErrorKind::NoSpace), "{error:?}");
    assert_eq!(std::fs::read_dir(&into).expect("list").count(), 0);
    control.resume().expect("it runs on");
    jail.forget();
    let last = jail.await_line("lab:tick", |_| true);
    control.pause().expect("paused");
    for small in [&jail.place.own, &into] {
        mount_remount(small, MountFlags::empty(), "size=300m").expect("room");
    }
    let saved = timed("save", || control.save(machine, &into).expect("saved"));
    timed("resume", || control.resume().expect("resumed"));
    let snapshot = timed("record", || saved.record().expect("recorded"));
    jail.forget();
    jail.await_line("lab:tick", |_| true);
    resize(&machine.drives[0].file, LARGEST);
    control.resize_drive("root", ByteSize::mib(128)).expect("resized");
    jail.await_end();
    (snapshot, last)
}

fn resize(file: &Path, sectors: u64) {
    File::options().write(true).open(file).and_then(|file| file.set_len(sectors << 9)).expect("resize");
}

/// A port of QEMU's is there in any case. Through a vsock the program says whether anybody in the guest listens.
fn reaches_the_guest(world: &World, jail: &mut Jail) {
    let address = world.vmm.channel(&jail.place);
    let mut connected = timed("channel", || address.connect());
    if world.vmm.capabilities().emulates {
        return drop(connected.expect("a port"));
    }
    if std::env::var_os("GARTH_TEST_AGENT").is_none() {
        let error = connected.expect_err("nobody listens in the guest");
        return assert!(matches!(error.kind(), ErrorKind::Refused { .. }), "{error}");
    }
    // The guest prints all the time.
    while connected.is_err() {
        jail.await_line("lab:tick", |_| true);
        connected = timed("channel", || address.connect());
    }
    println!("lab:agent listens");
}

/// By serial, or by the order on the kernel's command line.
fn tells_its_disks(words: &str, disks: &[String; 2]) {
    let is = |disk: &str, serial: &str| match serial {
        "root" => disk.starts_with(&format!("{ROOT} 0")),
        _ => disk.starts_with(&format!("{USR} 1")),
    };
    let told = words.split(' ').find_map(|word| word.strip_prefix("garth.disks="));
    let serials: Vec<&str> = match told {
        Some(order) => order.split(',').collect(),
        None => disks.iter().filter_map(|disk| disk.split(' ').nth(2)).collect(),
    };
    assert_eq!(serials.len(), 2, "{disks:?}");
    assert!(disks.iter().zip(serials).all(|(disk, serial)| is(disk, serial)), "{disks:?}");
}

fn clones_differ(world: &World, saved: &Snapshot, last: &str) {
    let vmm = &world.vmm;
    let snapshot = timed("read and compare", || Snapshot::open(saved.directory()).expect("whole"));
    let clones = ["one", "two"].map(|name| {
        let machine = world.copy(name);
        let mut jail = world.start(&machine, Begin::Restore(&snapshot), name);
        let mut control = jail.control(vmm);
        let other = Machine { vcpus: 2, ..machine.clone() };
        let error = control.load(&other, &snapshot).expect_err("another machine");
        assert!(matches!(error.kind(), ErrorKind::Snapshot(SnapshotFault::OtherMachine)), "{error}");
        timed("load", || control.load(&machine, &snapshot).expect("loaded"));
        timed("resume a clone", || control.resume().expect("resumed"));
        // The line that it was printing when it was saved ends in the clone.
        let whole = |tick: &str| tick.split_whitespace().count() == 3;
        timed("first line of a clone", || jail.await_line("lab:tick", whole));
        let tick = jail.await_line("lab:tick", whole);
        reaches_the_guest(world, &mut jail);
        (tick, jail)
    });
    let [(one, _), (two, _)] = &clones;
    assert_ne!(one, last);
    println!("lab:clones {one} | {two}");
    if vmm.capabilities().vmgenid {
        assert_ne!(one, two, "both clones draw the same random numbers");
    }
}
