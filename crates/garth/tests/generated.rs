//! Files in the repository that come from the code are what the code says.
//! `GARTH_REGENERATE=1 cargo test -p garth --test generated` writes them again.

use std::path::Path;
use std::process::Command;

#[test]
fn the_command_line_reference_is_up_to_date() {
    let program = Command::new(env!("CARGO_BIN_EXE_garth")).arg("reference").env_clear().output().expect("garth runs");
    assert!(program.status.success(), "{program:?}");
    let reference = String::from_utf8(program.stdout).expect("text");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    if std::env::var_os("GARTH_REGENERATE").is_some() {
        std::fs::create_dir_all(file.parent().expect("docs")).expect("docs/");
        std::fs::write(&file, &reference).expect("docs/cli.md");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == reference, "docs/cli.md is not what the code says: run `just generate`");
}
