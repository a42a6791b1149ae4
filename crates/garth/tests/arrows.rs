//! Dependencies between our crates point one way: the table of ARCHITECTURE.md, as a test.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Each crate, and the only ones of ours that it may use. Tests and benchmarks may use more.
const MAY_USE: &[(&str, &[&str])] = &[
    ("garth-spec", &[]),
    ("garth-kernel", &[]),
    ("garth-protocol", &[]),
    ("garth-channel", &[]),
    ("garth-agent-binary", &[]),
    ("garth-procview", &[]),
    ("garth-runtime", &["garth-spec", "garth-kernel", "garth-procview"]),
    ("garth-agent", &["garth-spec", "garth-protocol", "garth-channel", "garth-kernel", "garth-runtime"]),
    ("garth-storage", &["garth-spec", "garth-kernel"]),
    ("garth-image", &["garth-spec", "garth-kernel", "garth-storage"]),
    ("garth-network", &["garth-spec", "garth-kernel"]),
    ("garth-vm", &["garth-spec", "garth-kernel"]),
    ("garth-verify", &["garth-spec"]),
    (
        "garth-engine",
        &[
            "garth-spec",
            "garth-kernel",
            "garth-protocol",
            "garth-channel",
            "garth-runtime",
            "garth-storage",
            "garth-image",
            "garth-network",
            "garth-vm",
            "garth-verify",
        ],
    ),
    ("garth-api", &["garth-spec"]),
    ("garth-cluster", &["garth-spec", "garth-protocol", "garth-channel", "garth-verify"]),
    ("garth-server", &["garth-api", "garth-engine", "garth-cluster", "garth-verify", "garth-spec"]),
    (
        "garth",
        &[
            "garth-api",
            "garth-server",
            "garth-cluster",
            "garth-protocol",
            "garth-spec",
            "garth-agent-binary",
            "garth-kernel",
        ],
    ),
    ("garth-cluster-lab", &[]),
    ("garth-bench-cluster", &["garth-api", "garth-channel", "garth-cluster-lab", "garth-spec"]),
    ("garth-bench", &["garth-api", "garth-kernel", "garth-protocol", "garth-spec"]),
];

#[test]
fn no_crate_uses_one_that_it_may_not() {
    let mut forbidden = Vec::new();
    for (name, used) in arrows(&metadata()) {
        match MAY_USE.iter().find(|(known, _)| *known == name) {
            None => forbidden.push(format!("{name} is not in the table: add it with what it may use")),
            Some((_, may)) => {
                let over = used.iter().filter(|used| !may.contains(&used.as_str()));
                forbidden.extend(over.map(|over| format!("{name} uses {over}")));
            }
        }
    }
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}

fn metadata() -> Value {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let args = ["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path", manifest];
    let out = Command::new(env!("CARGO")).args(args).output().expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("cargo metadata is JSON")
}

/// Each crate of the workspace and the others of it that it uses, tests aside.
fn arrows(metadata: &Value) -> Vec<(String, BTreeSet<String>)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = list(&metadata["packages"]);
    let ours: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    let arrow = |package: &Value| {
        let used = list(&package["dependencies"]).into_iter().filter(|dependency| dependency["kind"] != "dev");
        let used = used.map(|dependency| text(&dependency["name"])).filter(|name| ours.contains(name));
        (text(&package["name"]), used.collect())
    };
    packages.iter().map(arrow).collect()
}

#[test]
fn the_table_names_only_crates_before_it() {
    for (at, (name, may)) in MAY_USE.iter().enumerate() {
        for used in *may {
            let known = MAY_USE.iter().take(at).any(|(known, _)| known == used);
            assert!(known, "{name} may use {used}, which comes after it: that could become a circle");
        }
    }
}
