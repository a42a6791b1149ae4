use std::path::{Path, PathBuf};

use garth_spec::ByteSize;
use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;
use crate::mock::{DONE, Mock, Schema, answer, machine, refusal, snapshot};
use crate::vmm::{Access, Place};

/// A program that does what `deed` says; it sees its own directory.
struct World {
    directory: tempfile::TempDir,
    mock: Mock,
    control: Control,
}

impl World {
    fn new(mut deed: impl FnMut(&Path, &str) -> String + Send + 'static) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let place = Place { host: directory.path().to_owned(), own: directory.path().join("own") };
        std::fs::create_dir(&place.own).expect("own");
        std::fs::create_dir(directory.path().join("into")).expect("into");
        let schema = Schema::parse(include_str!("schema.json"));
        let own = place.own.clone();
        let mock = Mock::listen(&place.control(), schema, move |order, _| deed(&own, order));
        Self { control: Control::connect(&place).expect("connected"), directory, mock }
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("into")
    }

    /// Files in the program's directory of what was saved.
    fn left(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("own/saved")).expect("list").count()
    }
}

/// Saves a configuration that is not what was asked for.
fn saving(own: &Path, order: &str) -> String {
    if order == "PUT /api/v1/vm.snapshot" {
        let mut config = config::of(&machine());
        config["landlock_enable"] = json!("whatever");
        config["disks"][0]["path"] = json!("/somewhere/else");
        config["disks"][0]["num_queues"] = json!(1);
        config["net"][0]["host_mac"] = json!("02:00:00:00:00:09");
        for (name, content) in
            [(CONFIG, config.to_string()), ("memory-ranges", String::new()), ("state.json", String::new())]
        {
            std::fs::write(own.join("saved").join(name), content).expect("write");
        }
    }
    DONE.to_owned()
}

#[test]
fn a_machine_that_runs_is_not_resumed() {
    let states = ["Running", "Paused"];
    let asked = states.map(|state| {
        let text = answer(&format!(r#"{{"state":"{state}"}}"#));
        let is_asked = |order: &str| order == "GET /api/v1/vm.info";
        let mut world = World::new(move |_, order| if is_asked(order) { text.clone() } else { DONE.to_owned() });
        world.control.resume().expect("it runs");
        world.mock.asked().len()
    });
    // The first order is to connect.
    assert_eq!(asked, [2, 3]);
}

#[test]
fn every_request_is_one_of_its_published_interface() {
    let mut world = World::new(saving);
    world.control.start(&Machine { shares: vec!["volume0".to_owned()], ..machine() }).expect("started");
    world.control.pause().expect("paused");
    world.control.save(&machine(), &world.target()).expect("saved");
    world.control.resume().expect("resumed");
    world.control.balloon(machine().memory, ByteSize::mib(64)).expect("ballooned");
    world.control.resize_drive("root", ByteSize::mib(1)).expect("resized");
    let another = tempfile::tempdir().expect("directory");
    let snapshot = snapshot(another.path(), &[]);
    world.control.load(&snapshot).expect("loaded");
    let own = another.path().join("own");
    std::fs::write(&own, [0; 1024]).expect("a disk");
    let mut here = machine();
    here.drives[0].file = own;
    world.control.measure_drives(&here).expect("measured");
    let asked = world.mock.asked();
    let expected = "vmm.ping vm.create vm.boot vm.pause vm.snapshot vm.info vm.resume vm.resize vm.resize-disk vm.restore \
                    vm.resize-disk";
    let asked: Vec<&str> = asked.iter().filter_map(|order| order.rsplit('/').next()).collect();
    assert_eq!(asked.join(" "), expected);
}

#[test]
fn a_machine_that_is_restored_is_as_enclosed_as_it_was_asked_for() {
    let mut world = World::new(saving);
    world.control.start(&machine()).expect("started");
    world.control.save(&machine(), &world.target()).expect("saved");
    let saved = std::fs::read(world.target().join(CONFIG)).expect("configuration");
    let saved: Value = serde_json::from_slice(&saved).expect("JSON");
    assert_eq!(saved["landlock_enable"], config::of(&machine())["landlock_enable"]);
    assert_eq!(saved["disks"][0]["path"], "/disks/root");
    assert_eq!(saved["net"][0]["host_mac"], Value::Null);
    // What it added is its own matter.
    assert_eq!(saved["disks"][0]["num_queues"], 1);
    assert_eq!(world.left(), 0);
}

/// It would start a guest that panicked again, and makes a socket there for that.
#[test]
fn a_program_whose_guest_runs_makes_nothing_in_its_directory_but_what_it_saves() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIP a_program_whose_guest_runs_makes_nothing_in_its_directory: root");
    }
    let mut world = World::new(saving);
    let own = world.directory.path().join("own");
    std::os::unix::fs::chown(&own, Some(1000), Some(1000)).expect("chown");
    world.control.start(&machine()).expect("started");
    let owner = |path: &Path| std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).expect("metadata"));
    assert_eq!((owner(&own), owner(&own.join("saved"))), (0, 1000));
}

#[test]
fn a_save_that_fails_leaves_nothing_and_the_machine_runs_on() {
    let mut world = World::new(|own, order| match order {
        "PUT /api/v1/vm.snapshot" => {
            saving(own, order);
            refusal("No space left on device (os error 28)")
        }
        _ => DONE.to_owned(),
    });
    world.control.start(&machine()).expect("started");
    let error = world.control.save(&machine(), &world.target()).expect_err("no room");
    assert!(matches!(error.kind(), ErrorKind::NoSpace), "{error}");
    assert_eq!(world.left(), 0);
    assert_eq!(std::fs::read_dir(world.target()).expect("list").count(), 0);
    world.control.resume().expect("it runs on");
}

#[test]
fn a_share_is_reached_by_a_name_of_the_jails_and_has_the_guests_memory() {
    let config = |shares| config::of(&Machine { shares, ..machine() });
    let shared = config(vec!["volume0".to_owned()]);
    assert_eq!((&shared["fs"][0]["tag"], &shared["memory"]["shared"]), (&json!("volume0"), &json!(true)));
    assert_eq!(config(Vec::new())["memory"]["shared"], false);
    let program = CloudHypervisor(Program::at("/bin/true".into()).expect("a program with a version"));
    let launch = program.launch(&Machine { shares: vec!["volume0".to_owned()], ..machine() }, Begin::Boot);
    assert_eq!(launch.sockets, [Path::new(shared["fs"][0]["socket"].as_str().expect("a path"))]);
}

#[test]
fn disks_are_named_raw_and_landlock_is_on_where_the_kernel_has_enough_of_it() {
    let config = config::of(&machine());
    assert!(config["disks"].as_array().expect("disks").iter().all(|disk| disk["image_type"] == "Raw"));
    assert_eq!(config["landlock_enable"], garth_kernel::landlock::version() >= 3);
    assert!(!config.to_string().contains("/pool/"));
    let program = CloudHypervisor(Program::at("/bin/true".into()).expect("a program with a version"));
    let launch = program.launch(&machine(), Begin::Boot);
    assert_eq!(launch.descriptors, [Descriptor::Control, Descriptor::Output]);
    let access = |at: &str| launch.shown.iter().find(|shown| shown.at == Path::new(at)).map(|shown| shown.access);
    assert_eq!((access("/dev/urandom"), access("/disks/usr")), (Some(Access::Device), Some(Access::Read)));
}
