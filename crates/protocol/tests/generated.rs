//! The committed code is what `proto/` says.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

#[path = "../examples/regenerate.rs"]
#[allow(clippy::allow_attributes, dead_code, reason = "its main is not used here")]
mod regenerate;

fn files(dir: &Path) -> BTreeMap<String, String> {
    fs::read_dir(dir)
        .expect("directory")
        .map(|entry| entry.expect("entry").path())
        .map(|path| {
            (path.file_name().expect("name").to_string_lossy().into_owned(), fs::read_to_string(&path).expect("text"))
        })
        .collect()
}

#[test]
fn committed_code_matches_the_proto_files() {
    if Command::new("protoc").arg("--version").output().is_err() {
        println!("SKIP committed_code_matches_the_proto_files: protoc");
        return;
    }
    let fresh = tempfile::tempdir().expect("temporary directory");
    regenerate::generate(fresh.path());
    let committed = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen"));
    for (name, text) in files(fresh.path()) {
        assert!(committed.get(&name) == Some(&text), "{name} is stale: run the example `regenerate`");
    }
}
