use garth_spec::{ByteSize, CpuCount};
use serde::Deserialize as _;

use super::*;
use crate::Root;

fn made(limits: Limits, volumes: &[(&'static str, PathBuf)]) -> Value {
    let plan = SandboxPlan { limits, ..SandboxPlan::new("web", Root::Directory("/pool/web".into()), "/pool/state") };
    let masked = ["kcore".to_owned()];
    config(&Parts {
        plan: &plan,
        rootfs: "/run/garth/oci/x/rootfs".into(),
        volumes,
        holder: 42,
        first: FirstId::deserialize(json!(1_000_000)).expect("an id"),
        cgroup: "/garth-t.oci/x".into(),
        masked: &masked,
        devices: DEVICES.into(),
    })
}

fn default() -> Value {
    made(Limits::default(), &[])
}

#[test]
fn users_are_a_range_of_their_own_and_both_namespaces_are_joined() {
    let config = default();
    let ids = json!([{ "containerID": 0, "hostID": 1_000_000, "size": 65_536 }]);
    assert_eq!((&config["linux"]["uidMappings"], &config["linux"]["gidMappings"]), (&ids, &ids));
    let paths: Vec<&str> =
        config["linux"]["namespaces"].as_array().expect("list").iter().filter_map(|n| n["path"].as_str()).collect();
    assert_eq!(paths, ["/proc/42/ns/user", "/proc/42/ns/net"]);
}

/// Sysbox refuses a bundle that shares one of these with the host.
#[test]
fn no_namespace_is_the_hosts() {
    let config = default();
    let kinds: Vec<&str> =
        config["linux"]["namespaces"].as_array().expect("list").iter().filter_map(|n| n["type"].as_str()).collect();
    for kind in ["pid", "ipc", "uts", "mount", "network", "user"] {
        assert!(kinds.contains(&kind), "{kind}");
    }
}

#[test]
fn limits_leave_no_swap() {
    let limits = Limits {
        memory: ByteSize::mib(256),
        cpus: "1.5".parse::<CpuCount>().expect("cpus"),
        pids: 99,
        ..Limits::default()
    };
    let resources = &made(limits, &[])["linux"]["resources"];
    let bytes = 256 << 20;
    assert_eq!(resources["memory"], json!({ "limit": bytes, "swap": bytes }));
    assert_eq!(resources["cpu"], json!({ "quota": 150_000, "period": 100_000 }));
    assert_eq!(resources["pids"], json!({ "limit": 99 }));
}

#[test]
fn devices_are_refused_before_the_few_are_allowed() {
    let rules = &default()["linux"]["resources"]["devices"];
    assert_eq!(rules[0], json!({ "allow": false, "access": "rwm" }));
    assert_eq!(
        (rules.as_array().map(Vec::len), &rules[1]["minor"], &rules[2]["minor"]),
        (Some(3), &json!(229), &json!(200))
    );
}

#[test]
fn nothing_of_the_host_is_mounted_but_the_disk() {
    let volumes = [("/var/lib/docker", PathBuf::from("/run/garth/oci/x/volume-0"))];
    let config = made(Limits::default(), &volumes);
    let binds: Vec<(&str, &str)> = config["mounts"]
        .as_array()
        .expect("list")
        .iter()
        .filter(|mount| mount["type"] == "bind")
        .filter_map(|mount| Some((mount["destination"].as_str()?, mount["source"].as_str()?)))
        .collect();
    assert_eq!(binds, [("/var/lib/docker", "/run/garth/oci/x/volume-0")]);
}

/// Sysbox takes every variable `SYSBOX_…` of process 1 for a setting of its own: a project's environment goes to the
/// agent by the order alone.
#[test]
fn a_projects_environment_is_not_process_ones() {
    assert_eq!(default()["process"]["env"], json!([]));
}

/// The specification's own checker (a Go module), fetched for the occasion.
#[test]
fn the_specifications_schema_accepts_it() {
    let dir = tempfile::tempdir().expect("dir");
    let go = |words: &[&str]| {
        std::process::Command::new("go").args(words).current_dir(dir.path()).env("GOFLAGS", "-mod=mod").output()
    };
    const CHECKER: &str = "github.com/opencontainers/runtime-spec/schema";
    let needed = format!("{}@v1.3.0", CHECKER.trim_end_matches("/schema"));
    let ready =
        go(&["mod", "init", "check"]).and_then(|_| go(&["get", &needed, "github.com/xeipuuv/gojsonschema@v1.2.0"]));
    match ready {
        Ok(output) if output.status.success() => {}
        other => return eprintln!("SKIP the_specifications_schema_accepts_it: no Go with that module: {other:?}"),
    }
    let listed = go(&["list", "-f", "{{.Dir}}", CHECKER]).expect("go");
    let schema = format!("{}/config-schema.json", String::from_utf8_lossy(&listed.stdout).trim());
    let volumes = [("/var/lib/docker", PathBuf::from("/run/garth/oci/x/volume-0"))];
    let good = made(Limits::default(), &volumes);
    let mut bad = good.clone();
    bad["linux"]["uidMappings"][0]["size"] = json!("many");
    for (config, accepted) in [(good, true), (bad, false)] {
        std::fs::write(dir.path().join("config.json"), config.to_string()).expect("write");
        let said = go(&["run", CHECKER, &schema, "config.json"]).expect("go");
        assert_eq!(
            said.status.success(),
            accepted,
            "{}",
            String::from_utf8_lossy(&[said.stdout, said.stderr].concat())
        );
    }
}
