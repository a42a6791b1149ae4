use garth_spec::{Observed, ProbeReport};
use garth_verify::{judged, question};
use k8s_openapi::api::core::v1::{
    Container, EphemeralContainer, HostPathVolumeSource, PodSpec, ProjectedVolumeSource, ResourceRequirements,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::*;
use crate::render::{Settings, pod as rendered};
use crate::resources::{IsolationClass, Project, ProjectSpec};

const BOOT: &str = "0b4f8a4e-8a5d-4d6f-9a55-6f2d7e0c1a11";
const OTHER_BOOT: &str = "7c1d2f3a-1111-4222-8333-444455556666";

const DEFAULT: (Runtime, User) = (Runtime::Default, User::Unprivileged);
const SYSBOX: (Runtime, User) = (Runtime::Sysbox, User::Root);
const MICROVM: (Runtime, User) = (Runtime::Microvm, User::Root);

fn project() -> Project {
    let spec: ProjectSpec = serde_json::from_value(serde_json::json!({
        "image": "debian:12", "limits": { "cpus": "500m", "memory": "256Mi", "disk": "1Gi" }
    }))
    .expect("a spec");
    Project::new("web", spec)
}

fn class((runtime, user): (Runtime, User)) -> Option<IsolationClass> {
    let (runtime, class) = match runtime {
        Runtime::Default => return None,
        Runtime::Sysbox => ("sysbox/sysbox-runc", "sysbox-runc"),
        Runtime::Microvm => ("microvm/qemu", "kata-qemu"),
    };
    let class = serde_json::from_value(serde_json::json!({
        "apiVersion": "garth.dev/v1alpha1", "kind": "IsolationClass", "metadata": { "name": class },
        "spec": { "runtime": runtime, "runtimeClassName": class, "hostUsers": false, "user": user }
    }));
    Some(class.expect("a class"))
}

/// What is known of a sandbox that is as it should be: the Pod is the one that the operator makes.
fn facts(kind: (Runtime, User)) -> Facts {
    let class = class(kind);
    let settings =
        Settings { agent_image: "garth:test".into(), namespace: "garth".into(), suspend_after_seconds: None };
    Facts {
        made: Made {
            runtime: kind.0,
            user: kind.1,
            user_namespace: class.is_some(),
            runtime_class: class.as_ref().and_then(|class| class.spec.runtime_class_name.clone()),
            memory: Some(ByteSize::mib(256)),
            cpus: "0.5".parse().ok(),
            disk: "/workspace".to_owned(),
        },
        pod: rendered(&project(), class.as_ref(), &settings, "web-disk"),
        node: Ok(Machine {
            boot_id: BOOT.to_owned(),
            kernel: "6.12.0".to_owned(),
            addresses: vec!["192.0.2.7".parse().expect("an address")],
        }),
        neighbours: vec!["10.1.0.9".parse().expect("an address")],
        api_server: "10.96.0.1:443".parse().ok(),
        gateway: "10.1.0.2:40000".parse().expect("an address"),
        arrived: Vec::new(),
        disk_held: Some(true),
    }
}

const STATUS: &str = "Name:\tgarth-agent\nUid:\t1000\t1000\t1000\t1000\nCapPrm:\t0000000000000000\n\
    CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

const MOUNTS: &str = "1 0 0:57 / / rw - overlay overlay rw\n2 1 0:75 / /proc rw - proc proc rw\n\
    3 2 0:75 /sys /proc/sys ro - proc proc rw\n4 1 8:1 /x /etc/hosts rw - ext4 /dev/sda1 rw\n\
    5 1 8:1 /y /workspace rw - ext4 /dev/sdb rw\n6 1 8:1 /z /garth/state rw - ext4 /dev/sdb rw\n";

/// What comes of a try in a sandbox that is as it should be.
fn good(kind: (Runtime, User), id: &str, one: &Try) -> Observed {
    let text = |text: &str| Observed::Text(text.to_owned());
    let Try::Read(path) = one else {
        return match (id, one) {
            ("loopback", _) => Observed::Done,
            ("network-policy" | "neighbours" | "node", _) => Observed::Errno(110),
            ("descriptors", _) => text("0\n1\n2\n3"),
            ("devices", _) => text("c 1:3 null\nc 5:2 ptmx"),
            ("raw-devices", _) => Observed::Errno(2),
            _ => Observed::Errno(1),
        };
    };
    match path.as_str() {
        "/proc/self/status" => text(STATUS),
        "/proc/self/uid_map" | "/proc/self/gid_map" if kind.1 == User::Root => text("0 131072 65536\n"),
        "/proc/self/uid_map" | "/proc/self/gid_map" => text("         0          0 4294967295\n"),
        "/proc/self/mountinfo" => text(MOUNTS),
        "/proc/2/stat" => Observed::Errno(2),
        "/proc/sys/kernel/random/boot_id" => text(&format!("{OTHER_BOOT}\n")),
        "/proc/version" => text("Linux version 6.1.62 (builder) #1 SMP\n"),
        "/sys/fs/cgroup/memory.max" => text("268435456\n"),
        "/sys/fs/cgroup/cpu.max" => text("50000 100000\n"),
        _ => Observed::Errno(2),
    }
}

/// The ids of the checks that fail, after something was changed for the worse.
fn failed(
    kind: (Runtime, User),
    outside: impl FnOnce(&mut Facts),
    inside: impl Fn(&str, &Try) -> Option<Observed>,
) -> Vec<&'static str> {
    let mut facts = facts(kind);
    outside(&mut facts);
    let checks = checks(&facts);
    assert_eq!(question(&checks).tries.len(), checks.iter().map(|check| check.tries.len()).sum::<usize>());
    let observed = checks.iter().flat_map(|check| {
        let one = |one| inside(check.id, one).unwrap_or_else(|| good(kind, check.id, one));
        check.tries.iter().map(one).collect::<Vec<_>>()
    });
    let report = ProbeReport { observed: observed.collect() };
    judged(&checks, report, &facts).into_iter().filter(|check| !check.passed).map(|check| check.id).collect()
}

#[track_caller]
fn outside(kind: (Runtime, User), id: &str, worse: impl FnOnce(&mut Facts)) {
    assert_eq!(failed(kind, worse, |_, _| None), [id]);
}

#[track_caller]
fn inside(kind: (Runtime, User), id: &str, observed: Observed) {
    assert_eq!(failed(kind, |_| {}, |of, _| (of == id).then(|| observed.clone())), [id], "{observed:?}");
}

#[track_caller]
fn changed(worse: impl FnOnce(&mut PodSpec)) {
    outside(DEFAULT, "pod", |facts| worse(facts.pod.spec.as_mut().expect("a spec")));
}

fn text(text: &str) -> Observed {
    Observed::Text(text.to_owned())
}

#[test]
fn a_sandbox_that_is_as_it_should_be_passes() {
    for kind in [DEFAULT, SYSBOX, MICROVM] {
        assert_eq!(failed(kind, |_| {}, |_, _| None), [""; 0], "{kind:?}");
        assert!(checks(&facts(kind)).len() >= 13, "{kind:?}");
    }
    // Without neighbours, and by a gateway that is not told where the API server is.
    let alone = |facts: &mut Facts| (facts.neighbours, facts.api_server) = (Vec::new(), None);
    assert_eq!(failed(DEFAULT, alone, |_, _| None), [""; 0]);
}

#[test]
fn ids_are_there_once() {
    for kind in [DEFAULT, SYSBOX, MICROVM] {
        let mut ids: Vec<&str> = checks(&facts(kind)).iter().map(|check| check.id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}

#[test]
fn a_pod_that_somebody_changed_on_its_way_in_fails() {
    changed(|spec| spec.host_network = Some(true));
    changed(|spec| spec.host_pid = Some(true));
    changed(|spec| spec.host_ipc = Some(true));
    changed(|spec| spec.share_process_namespace = Some(true));
    changed(|spec| spec.containers.push(Container { name: "mesh".into(), ..Container::default() }));
    changed(|spec| spec.containers[0].security_context.as_mut().expect("one").privileged = Some(true));
    changed(|spec| {
        let security = spec.containers[0].security_context.as_mut().expect("one");
        security.capabilities.as_mut().expect("some").add = Some(vec!["NET_ADMIN".into()]);
    });
    changed(|spec| spec.containers[0].ports.as_mut().expect("one")[0].host_port = Some(80));
    changed(|spec| {
        let added = EphemeralContainer { name: "debugger".into(), ..EphemeralContainer::default() };
        spec.ephemeral_containers = Some(vec![added]);
    });
    let volume = |volume: Volume| {
        move |facts: &mut Facts| {
            facts.pod.spec.as_mut().expect("a spec").volumes.get_or_insert_default().push(volume);
        }
    };
    let host_path = Some(HostPathVolumeSource { path: "/".into(), type_: None });
    outside(DEFAULT, "pod", volume(Volume { name: "node".into(), host_path, ..Volume::default() }));
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection { path: "token".into(), ..Default::default() }),
        ..VolumeProjection::default()
    };
    let projected = Some(ProjectedVolumeSource { sources: Some(vec![token]), default_mode: None });
    outside(DEFAULT, "service-account", volume(Volume { name: "a".into(), projected, ..Volume::default() }));
    inside(DEFAULT, "service-account", text("eyJ"));
}

#[test]
fn a_sandbox_of_a_weaker_runtime_than_it_says_fails() {
    let weaker = |facts: &mut Facts| facts.pod.spec.as_mut().expect("a spec").runtime_class_name = None;
    outside(SYSBOX, "runtime-class", weaker);
    outside(MICROVM, "runtime-class", weaker);
    outside(SYSBOX, "runtime-class", |facts| facts.pod.spec.as_mut().expect("a spec").host_users = None);
    // A RuntimeClass that has the right name, and is carried out by a container runtime.
    let node = |_: &str, one: &Try| matches!(one, Try::Read(path) if path.ends_with("boot_id")).then(|| text(BOOT));
    assert_eq!(failed(MICROVM, |_| {}, node), ["kernel"]);
    inside(MICROVM, "kernel", Observed::Errno(1));
    // Nothing that needs the node passes without it.
    assert_eq!(failed(MICROVM, |facts| facts.node = Err("forbidden".into()), |_, _| None), ["kernel", "node"]);
    let nodes =
        |_: &str, one: &Try| matches!(one, Try::Read(path) if path.ends_with("id_map")).then(|| text("0 0 4294967295"));
    assert_eq!(failed(SYSBOX, |_| {}, nodes), ["users"]);
}

#[test]
fn an_attack_that_works_fails_its_check() {
    for id in [
        "kernel-memory",
        "kernel-addresses",
        "kernel-log",
        "kernel-settings",
        "kernel-modules",
        "system-calls",
        "raw-devices",
        "device-nodes",
        "mounting",
        "user-namespaces",
        "network-policy",
        "neighbours",
        "node",
        "metadata",
        "private-networks",
        "api-server",
        "limits",
    ] {
        inside(DEFAULT, id, Observed::Done);
    }
    inside(DEFAULT, "loopback", Observed::Errno(1));
    inside(DEFAULT, "devices", text("b 8:0 sda"));
    inside(DEFAULT, "devices", text("c 10:200 tun"));
    inside(DEFAULT, "descriptors", text("0\n1\n2\n3\n9"));
    inside(DEFAULT, "processes", text("2 (kthreadd) S 0 0 0"));
    assert_eq!(
        failed(DEFAULT, |_| {}, |_, one| (*one == Try::Read("/proc/2/stat".into())).then(|| text("2 (sh) S"))),
        [""; 0]
    );
}

#[test]
fn whoever_arrives_at_the_gateway_was_let_through_whatever_it_says() {
    outside(DEFAULT, "network-policy", |facts| facts.arrived.push("10.1.0.5:1".parse().expect("an address")));
}

#[test]
fn a_process_with_more_than_it_may_have_fails() {
    let status = |from: &str, to: &str| text(&STATUS.replace(from, to));
    for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        inside(
            DEFAULT,
            "capabilities",
            status(&format!("{set}:\t0000000000000000"), &format!("{set}:\t0000000000000400")),
        );
        inside(DEFAULT, "capabilities", status(&format!("{set}:\t0000000000000000"), ""));
    }
    inside(DEFAULT, "no-new-privs", status("NoNewPrivs:\t1", "NoNewPrivs:\t0"));
    inside(DEFAULT, "filter", status("Seccomp:\t2", "Seccomp:\t0"));
    let root = |of: &str, one: &Try| {
        (of == "users" && *one == Try::Read("/proc/self/status".into())).then(|| status("1000", "0"))
    };
    assert_eq!(failed(DEFAULT, |_| {}, root), ["users"]);
    let mount = |line: &str| text(&format!("{MOUNTS}7 1 8:1 / {line} rw - ext4 /dev/sda1 rw\n"));
    for at in ["/host", "/var/run/secrets/kubernetes.io/serviceaccount", "/workspace/x", "/device", "/garth/other"] {
        inside(DEFAULT, "mounts", mount(at));
    }
    inside(DEFAULT, "mounts", text(""));
}

#[test]
fn limits_that_are_not_in_force_fail() {
    inside(DEFAULT, "memory-limit", text("max\n"));
    inside(DEFAULT, "memory-limit", text("268439552\n"));
    inside(DEFAULT, "memory-limit", Observed::Errno(2));
    inside(DEFAULT, "cpu-limit", text("max 100000\n"));
    inside(DEFAULT, "cpu-limit", text("100000 100000\n"));
    inside(DEFAULT, "cpu-limit", Observed::Errno(2));
    outside(DEFAULT, "disk-limit", |facts| facts.disk_held = Some(false));
    outside(DEFAULT, "disk-limit", |facts| facts.disk_held = None);
    let limits = |memory: &str, cpus: &str| ResourceRequirements {
        limits: Some(
            [("memory", memory), ("cpu", cpus)].map(|(key, value)| (key.into(), Quantity(value.into()))).into(),
        ),
        ..ResourceRequirements::default()
    };
    let given = |resources| {
        move |facts: &mut Facts| {
            facts.pod.spec.as_mut().expect("a spec").containers[0].resources = resources;
        }
    };
    outside(MICROVM, "memory-limit", given(Some(limits("512Mi", "0.5"))));
    outside(MICROVM, "cpu-limit", given(Some(limits("256Mi", "2"))));
    assert_eq!(failed(MICROVM, given(None), |_, _| None), ["memory-limit", "cpu-limit"]);
}

#[test]
fn limits_are_read_from_a_cgroup_of_version_1_as_well() {
    let version_1 = |_: &str, one: &Try| {
        let Try::Read(path) = one else { return None };
        Some(match path.as_str() {
            "/sys/fs/cgroup/memory.max" | "/sys/fs/cgroup/cpu.max" => Observed::Errno(2),
            "/sys/fs/cgroup/memory/memory.limit_in_bytes" => text("268435456\n"),
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us" => text("50000\n"),
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us" => text("100000\n"),
            _ => return None,
        })
    };
    assert_eq!(failed(DEFAULT, |_| {}, version_1), [""; 0]);
}
