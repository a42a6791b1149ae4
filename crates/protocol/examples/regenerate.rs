//! Writes `src/gen` anew from `proto`: `cargo run -p garth-protocol --example regenerate` (needs `protoc`).
use std::path::Path;

use buffa_codegen::BytesRepr;
use connectrpc_build::CodeGenConfig;

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
    let mut messages = CodeGenConfig::default();
    messages.generate_json = true;
    // Output and input move by reference count instead of being copied.
    messages.bytes_fields = vec![(".".to_owned(), BytesRepr::Bytes)];
    connectrpc_build::Config::new()
        .buffa_config(messages)
        .files(&files.map(|file| proto.join(file)))
        .includes(&[&proto])
        .out_dir(out)
        .include_file("mod.rs")
        .emit_rerun_directives(false)
        .emit_register_fn(false)
        .compile()
        .expect("protoc is installed and takes the files");
}
