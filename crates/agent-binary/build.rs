//! Builds `garth-agent` by a cargo of its own. See `src/lib.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// What the binary is made of.
const CRATES: [&str; 7] = ["agent", "channel", "runtime", "procview", "kernel", "protocol", "spec"];
/// Variables of the outer cargo that would change the inner build, or make it wait for the outer one's lock.
const OUTER: [&str; 9] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "__CARGO_DEFAULT_LIB_METADATA",
];

fn main() {
    let out = PathBuf::from(variable("OUT_DIR")).join("garth-agent");
    println!("cargo::rerun-if-env-changed=GARTH_AGENT_BINARY");
    let built = match env::var_os("GARTH_AGENT_BINARY") {
        Some(given) => {
            println!("cargo::rerun-if-changed={}", given.display());
            PathBuf::from(given)
        }
        None => build(),
    };
    fs::copy(&built, &out).unwrap_or_else(|error| panic!("{} cannot be copied: {error}", built.display()));
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}

fn build() -> PathBuf {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    watch(&root).expect("the workspace can be read");
    let target = variable("TARGET");
    let profile = variable("PROFILE");
    let target_dir = outer_target_dir().join(format!("agent-{profile}"));
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(&root).args([
        "build",
        "--package",
        "garth-agent",
        "--bin",
        "garth-agent",
        "--profile",
        "sandbox",
    ]);
    cargo.args(["--target", &target, "--target-dir"]).arg(&target_dir);
    env::vars_os().map(|(name, _)| name).filter(|name| is_outer(&name.to_string_lossy())).for_each(|name| {
        cargo.env_remove(name);
    });
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    if profile == "debug" {
        cargo.env("CARGO_PROFILE_SANDBOX_LTO", "off").env("CARGO_PROFILE_SANDBOX_CODEGEN_UNITS", "16");
        cargo.env("CARGO_PROFILE_SANDBOX_OPT_LEVEL", "1").env("CARGO_PROFILE_SANDBOX_INCREMENTAL", "true");
    }
    let status = cargo.status().unwrap_or_else(|error| panic!("cargo cannot be run: {error}"));
    assert!(
        status.success(),
        "garth-agent did not build; a static binary needs the C library's libc.a (apt: libc6-dev)"
    );
    target_dir.join(target).join("sandbox/garth-agent")
}

fn is_outer(name: &str) -> bool {
    OUTER.contains(&name)
        || ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.starts_with(start))
}

/// Cargo marks its target directory; a build directory elsewhere is as good.
fn outer_target_dir() -> PathBuf {
    let out = PathBuf::from(variable("OUT_DIR"));
    let marked = out.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists());
    marked.map_or_else(|| out.clone(), Path::to_owned)
}

/// Everything but tests makes this run again; the inner cargo then knows what to build.
fn watch(root: &Path) -> io::Result<()> {
    println!("cargo::rerun-if-changed={}", root.join("Cargo.toml").display());
    println!("cargo::rerun-if-changed={}", root.join("Cargo.lock").display());
    for name in CRATES {
        for entry in fs::read_dir(root.join("crates").join(name))? {
            let path = entry?.path();
            if !["tests", "benches", "examples"].iter().any(|not| path.ends_with(not)) {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
    }
    Ok(())
}
