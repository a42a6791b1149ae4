//! Writes `src/gen` anew from `proto`: `cargo run -p garth-protocol --example regenerate` (needs `protoc`).
use std::path::Path;

fn main() {
    generate(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen"));
}

/// Generates everything into an existing directory.
pub fn generate(out: &Path) {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = [
        "process/process.proto",
        "filesystem/filesystem.proto",
        "garth/agent/v1/processes.proto",
        "garth/agent/v1/sandbox.proto",
    ];
    connectrpc_build::Config::new()
        .files(&files.map(|file| proto.join(file)))
        .includes(&[&proto])
        .out_dir(out)
        .include_file("mod.rs")
        .emit_rerun_directives(false)
        .emit_register_fn(false)
        .compile()
        .expect("protoc is installed and takes the files");
}
