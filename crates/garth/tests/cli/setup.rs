use std::fs;

use snapbox::{assert_data_eq, str};

use crate::snapshot::{of, with};
use crate::yard::Yard;

#[test]
fn a_file_that_is_no_kernel_is_refused_with_what_to_give() {
    let yard = Yard::new();
    let file = yard.data_dir().join("notes");
    fs::write(&file, "text").expect("file");
    let file = file.to_str().expect("text");
    assert_data_eq!(
        of(&yard, &["setup", "microvm", "--kernel", file]),
        str![[r#"
exit 1
--- stdout
--- stderr
garth: cannot set up microvm: the guest's files could not be made: [DATA_DIR]/notes is a file of no known format, not a kernel
  hint: give a vmlinux or a bzImage (as /boot/vmlinuz-*) for x86-64

"#]]
    );
    assert_data_eq!(
        with(&yard, &["--json", "setup", "microvm", "--kernel", "/nonexistent"], &[]),
        str![[r#"
exit 1
--- stdout
{"error":{"cause":["/nonexistent cannot be read","No such file or directory"],"code":"setup_failed","message":"cannot set up microvm: the guest's files could not be made"}}
--- stderr

"#]]
    );
}

#[test]
fn a_kernel_of_the_users_is_what_guests_start_from() {
    let yard = Yard::new();
    // A daemon with files of guests of its own: others go on with theirs.
    let mut first = yard.command(&["ls"]);
    let first = crate::yard::finish(first.env("GARTH_CACHE_DIR", yard.data_dir().join("cache")), b"");
    assert_eq!(first.code, 0, "{first:?}");
    assert!(guest(&yard).starts_with("ok  guest: not made yet"), "{}", guest(&yard));
    // An ELF header for x86-64 and a banner: all that tells a kernel.
    let mut kernel = vec![0; 64];
    kernel[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    (kernel[16], kernel[18], kernel[20], kernel[52]) = (2, 62, 1, 64);
    kernel.extend_from_slice(b"Linux version 6.1-mine (someone)\0");
    let path = yard.data_dir().join("vmlinux");
    fs::write(&path, kernel).expect("kernel");
    let mut setup = yard.command(&["setup", "microvm", "--kernel", "vmlinux"]);
    let done = crate::yard::finish(setup.current_dir(yard.data_dir()), b"");
    let text = String::from_utf8_lossy(&done.stdout);
    let expected = format!("microVMs start from Linux 6.1-mine\n  of {}\n", path.display());
    assert!(done.code == 0 && text.starts_with(&expected), "{text}{}", done.stderr);
    assert_eq!(done.stderr, "", "no bar without a terminal");
    assert_eq!(guest(&yard), "ok  guest: Linux 6.1-mine");
}

/// What doctor says of the files that guests start from.
fn guest(yard: &Yard) -> String {
    let doctor = yard.garth(&["doctor"]).text();
    let line = doctor.lines().find(|line| line.contains(" guest: "));
    line.unwrap_or_else(|| panic!("{doctor}")).trim().to_owned()
}
