use std::path::{Path, PathBuf};

use garth_spec::ByteSize;
use serde_json::Value;

use super::*;
use crate::error::ErrorKind;
use crate::machine::DriveRate;
use crate::mock::{DONE, Mock, Schema, answer, machine, refusal, snapshot};
use crate::vmm::{Access, Place};

/// A program that does all that it is told; what it saves is where its directory is on the host.
struct World {
    directory: tempfile::TempDir,
    mock: Mock,
    control: Control,
}

impl World {
    fn new(mut deed: impl FnMut(&Path, &str, &Value) -> String + Send + 'static) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let own = directory.path().join("own");
        std::fs::create_dir(&own).expect("own");
        std::fs::create_dir(directory.path().join("into")).expect("into");
        let schema = Schema::parse(include_str!("schema.json"));
        let seen = own.clone();
        let mock = Mock::listen(&own.join(API), schema, move |order, body| deed(&seen, order, body));
        let place = Place { host: directory.path().to_owned(), own };
        Self { control: Control::connect(&place).expect("connected"), directory, mock }
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("into")
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join(directory)).expect("list").flatten();
        entries.map(|entry| entry.file_name().into_string().expect("text")).collect()
    }
}

/// Does what it is told: writes what it is to save.
fn obedient(own: &Path, order: &str, body: &Value) -> String {
    if order == "PUT /snapshot/create" {
        for path in ["snapshot_path", "mem_file_path"] {
            let name = body[path].as_str().expect("a path").strip_prefix("/own/").expect("in its own directory");
            std::fs::write(own.join(name), path).expect("write");
        }
    }
    DONE.to_owned()
}

#[test]
fn a_machine_that_runs_is_not_resumed() {
    let states = ["Running", "Paused"];
    let asked = states.map(|state| {
        let text = answer(&format!(r#"{{"state":"{state}"}}"#));
        let mut world = World::new(move |_, order, _| if order == "GET /" { text.clone() } else { DONE.to_owned() });
        world.control.resume().expect("it runs");
        world.mock.asked()
    });
    assert_eq!(asked, [vec!["GET /"], vec!["GET /", "PATCH /vm"]]);
}

#[test]
fn every_request_is_one_of_its_published_interface() {
    let mut world = World::new(obedient);
    world.control.start(&machine()).expect("started");
    world.control.pause().expect("paused");
    world.control.save(&machine(), &world.target()).expect("saved");
    world.control.resume().expect("resumed");
    world.control.balloon(machine().memory, ByteSize::mib(64)).expect("ballooned");
    world.control.resize_drive("root", ByteSize::mib(1)).expect("resized");
    world.control.set_drive_rate("root", DriveRate::default()).expect("as fast as it goes");
    let another = tempfile::tempdir().expect("directory");
    let snapshot = snapshot(another.path(), &[]);
    world.control.load(&snapshot).expect("loaded");
    let expected = [
        "PUT /machine-config",
        "PUT /boot-source",
        "PUT /drives/root",
        "PUT /drives/usr",
        "PUT /network-interfaces/net",
        "PUT /vsock",
        "PUT /entropy",
        "PUT /balloon",
        "PUT /actions",
        "PATCH /vm",
        "PUT /snapshot/create",
        "GET /",
        "PATCH /vm",
        "PATCH /balloon",
        "PATCH /drives/root",
        "PATCH /drives/root",
        "PUT /snapshot/load",
    ];
    assert_eq!(world.mock.asked(), expected);
}

#[test]
fn a_disk_begins_with_its_rate_and_another_without() {
    let requests = requests::boot(&machine());
    let of = |path: &str| {
        let request = requests.iter().find(|request| request.path == path).expect("a disk");
        let limiter = &request.body.as_ref().expect("a body")["rate_limiter"];
        (limiter["bandwidth"]["size"].clone(), limiter["ops"]["size"].clone())
    };
    assert_eq!(of("/drives/root"), (1_048_576.into(), 0.into()));
    assert_eq!(of("/drives/usr"), (0.into(), 0.into()));
}

#[test]
fn the_guest_is_told_its_disks_in_the_order_in_which_they_are_attached() {
    let requests = requests::boot(&machine());
    let words = requests[1].body.as_ref().expect("a body")["boot_args"].as_str().expect("words").to_owned();
    let told: Vec<&str> = words.split(' ').filter_map(|word| word.strip_prefix("garth.disks=")).collect();
    let attached: Vec<&str> = requests.iter().filter_map(|request| request.path.strip_prefix("/drives/")).collect();
    assert_eq!(told, [attached.join(",")]);
    let without = requests::boot(&Machine { drives: Vec::new(), ..machine() });
    assert!(!without[1].body.as_ref().expect("a body")["boot_args"].as_str().expect("words").contains("garth.disks"));
}

#[test]
fn what_a_machine_saved_is_the_hosts() {
    let mut world = World::new(obedient);
    world.control.save(&machine(), &world.target()).expect("saved");
    let mut names = world.names("into");
    names.sort();
    assert_eq!(names, [MEMORY, STATE]);
    assert_eq!(world.names("own"), [API]);
}

#[test]
fn a_full_disk_is_told_from_other_failures_and_leaves_nothing() {
    let full = "Cannot create snapshot: Cannot write memory file: No space left on device (os error 28)";
    for (words, is_full) in [(full, true), ("The requested operation is not supported", false)] {
        let mut world = World::new(move |own, order, body| {
            obedient(own, order, body);
            if order == "PUT /snapshot/create" { refusal(words) } else { DONE.to_owned() }
        });
        let error = world.control.save(&machine(), &world.target()).expect_err("no room");
        assert_eq!(matches!(error.kind(), ErrorKind::NoSpace), is_full, "{error}");
        assert_eq!((world.names("own"), world.names("into")), (vec![API.to_owned()], vec![]));
        world.control.resume().expect("it runs on");
    }
}

#[test]
fn a_start_ends_at_the_first_refusal() {
    let mut world = World::new(|_, order, _| if order == "PUT /vsock" { refusal("no") } else { DONE.to_owned() });
    let error = world.control.start(&machine()).expect_err("refused");
    assert!(matches!(error.kind(), ErrorKind::Refused { order, .. } if order == "PUT /vsock"));
    assert_eq!(world.mock.asked().last().map(String::as_str), Some("PUT /vsock"));
}

#[test]
fn paths_of_the_host_are_shown_and_never_named() {
    let firecracker = Firecracker(Program::at("/bin/true".into()).expect("a program with a version"));
    let launch = firecracker.launch(&machine(), Begin::Boot);
    let bodies: Vec<String> =
        requests::boot(&machine()).iter().filter_map(|r| r.body.as_ref().map(Value::to_string)).collect();
    assert!(!bodies.iter().chain(&launch.arguments).any(|word| word.contains("/pool/") || word.contains("/dev/null")));
    let access = |at: &str| launch.shown.iter().find(|shown| shown.at == Path::new(at)).map(|shown| shown.access);
    assert_eq!(access("/disks/root"), Some(Access::Write));
    assert_eq!(access("/disks/usr"), Some(Access::Read));
    assert_eq!((access("/dev/kvm"), access("/dev/net/tun")), (Some(Access::Device), Some(Access::Device)));
    assert_eq!(launch.tap, Some("tap0"));
    let directory = tempfile::tempdir().expect("directory");
    let snapshot = snapshot(directory.path(), &[]);
    let restored = firecracker.launch(&machine(), Begin::Restore(&snapshot));
    let more: Vec<_> =
        restored.shown.iter().skip(launch.shown.len()).map(|shown| shown.at.display().to_string()).collect();
    assert_eq!(more, ["/snapshot/state", "/snapshot/memory"]);
}

#[test]
fn a_program_of_another_kind_is_not_taken_for_it() {
    let error = Program::at("/bin/true".into()).expect("a program").saying("Firecracker v").expect_err("another");
    assert!(matches!(error.kind(), ErrorKind::NotAVmm { .. }));
}
