use super::*;
use garth_spec::AgentConfig;

fn policy() -> Policy {
    Policy::load(crate::Level::Default).expect("policy")
}

fn order() -> Order {
    Order {
        machine: [0; 16],
        hostname: "web".to_owned(),
        usr: false,
        volumes: vec!["/data".to_owned()],
        memory: 256 << 20,
        access: Access::Read,
        capabilities: Some(1),
        resolv_conf: Some("nameserver 10.0.0.1\n".to_owned()),
        hosts: Vec::new(),
        agent: AgentConfig::default(),
    }
}

fn all() -> Vec<Step> {
    let policy = policy();
    [base_steps(&policy, &[], &[]), warm_steps(&policy), network_steps(&policy), enter_steps(&order())].concat()
}

fn position(steps: &[Step], what: impl Fn(&Step) -> bool) -> usize {
    steps.iter().position(what).expect("the step is there")
}

#[test]
fn every_file_system_is_mounted_without_set_user_id_programs() {
    let steps = all();
    for step in &steps {
        if let Step::Mount { flags, .. } = step {
            assert!(flags.contains(MountFlags::NOSUID), "{step}");
        }
    }
}

#[test]
fn only_dev_can_hold_devices() {
    let steps = all();
    let with_devices: Vec<&str> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Mount { at, flags, .. } if !flags.contains(MountFlags::NODEV) => Some(at.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(with_devices, ["stage/dev", "stage/dev/pts"]);
}

/// In a sandbox the kernel makes no nodes: those of the machine are taken before it is left, and no others.
#[test]
fn a_machine_that_is_a_sandbox_shows_its_own_devices() {
    let shown = Policy { nodes: Nodes::Shown, ..policy() };
    let (base, warm) = (base_steps(&shown, &[], &[]), warm_steps(&shown));
    assert!(!base.iter().chain(&warm).any(|step| matches!(step, Step::Device { .. })));
    let of = |steps: &[Step], from: &str| -> Vec<String> {
        let exposed = steps.iter().filter_map(|step| match step {
            Step::Expose { from: node, .. } => Some(node.to_str().expect("a path").to_owned()),
            _ => None,
        });
        exposed.map(|node| node.strip_prefix(from).expect("one of these").to_owned()).collect()
    };
    let names: Vec<String> = DEVICES.iter().map(|(name, _)| format!("/{name}")).collect();
    assert_eq!((of(&base, "/dev"), of(&warm, MACHINES_NODES)), (names.clone(), names));
    let left = position(&base, |step| matches!(step, Step::BecomeRoot(_)));
    assert!(base[left..].iter().all(|step| !matches!(step, Step::Expose { .. })));
    assert!(!all().iter().any(|step| matches!(step, Step::Expose { .. })), "elsewhere they are made");
}

#[test]
fn the_boundary_closes_in_order() {
    let steps = enter_steps(&order());
    let root = position(&steps, |s| matches!(s, Step::BecomeRoot(_)));
    let filter = position(&steps, |s| *s == Step::LateFilter);
    let drop = position(&steps, |s| matches!(s, Step::DropCapabilities(_)));
    // Nothing is mounted after the root is left; the filter needs CAP_SYS_ADMIN, so it comes before the drop.
    let last_mount = steps
        .iter()
        .rposition(|s| matches!(s, Step::MoveToDisk(_) | Step::Attach { .. } | Step::Volume { .. }))
        .expect("mounts");
    assert!(last_mount < root && root < filter && filter < drop);
    assert_eq!(steps.last(), Some(&Step::CloseOthers));
    // Files of the disk are written before anything of another's is mounted on it.
    let last_etc = steps.iter().rposition(|s| matches!(s, Step::Etc(_))).expect("files");
    let volume = position(&steps, |s| matches!(s, Step::Volume { .. }));
    let protect = position(&steps, |s| matches!(s, Step::Protect(_)));
    assert!(last_etc < volume && volume < protect && protect < root);
}

#[test]
fn the_agent_keeps_what_it_needs_and_its_programs_get_what_was_asked_for() {
    for steps in [enter_steps(&order()), mapped::enter_steps(&order())] {
        let bound = position(&steps, |s| *s == Step::BoundTo(1));
        let drop = position(&steps, |s| matches!(s, Step::DropCapabilities(bits) if bits & 1 << 7 != 0));
        assert!(bound < drop);
    }
}

#[test]
fn proc_is_masked_before_an_order_can_come() {
    let steps = warm_steps(&policy());
    for node in ["kcore", "keys", "kmsg", "kpageflags", "timer_list", "cmdline"] {
        assert!(steps.contains(&Step::Mask(node.to_owned())), "{node}");
    }
    assert!(steps.contains(&Step::ReadOnly("sys".to_owned())));
    assert!(steps.contains(&Step::ReadOnly("sysrq-trigger".to_owned())));
}

#[test]
fn sys_shows_what_is_listed_and_nothing_else() {
    let shown: Vec<String> = base_steps(&policy(), &["memory".to_owned()], &[])
        .into_iter()
        .filter_map(|step| match step {
            Step::Show { from, .. } => Some(from),
            _ => None,
        })
        .collect();
    let expected: Vec<String> = policy().shown.iter().map(|path| format!("/sys/{path}")).collect();
    assert_eq!(shown, expected);
}

#[test]
fn an_order_without_usr_attaches_the_disk_alone() {
    let attached = |order: &Order| enter_steps(order).iter().filter(|step| matches!(step, Step::Attach { .. })).count();
    assert_eq!(attached(&order()), 1);
    assert_eq!(attached(&Order { usr: true, ..order() }), 2);
}

#[test]
fn parents_come_before_children() {
    assert_eq!(parents("a/b/c").collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
    assert_eq!(parents("a").collect::<Vec<_>>(), ["a"]);
}
