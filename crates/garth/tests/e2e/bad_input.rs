use crate::yard::{Yard, scratch};

/// Runs a command that must be refused: its exit code is not 0, its error says `why`, and nothing is left behind.
#[track_caller]
fn refused(yard: &Yard, args: &[&str], why: &str) {
    let before = (yard.project_names(), yard.ok(&["image", "ls", "-q"]));
    let done = yard.garth(args);
    assert_ne!(done.code, 0, "{args:?} was taken");
    assert!(done.stderr.to_lowercase().contains(&why.to_lowercase()), "{args:?} says {:?}, not {why:?}", done.stderr);
    assert_eq!((yard.project_names(), yard.ok(&["image", "ls", "-q"])), before, "{args:?} left something");
}

#[test]
fn names_and_sizes_that_mean_nothing_are_refused() {
    let yard = Yard::new();
    refused(&yard, &["create", ""], "empty");
    refused(&yard, &["create", &"a".repeat(65)], "longer than 63");
    refused(&yard, &["create", "../x"], "a-z");
    refused(&yard, &["create", "раypal"], "look-alikes");
    refused(&yard, &["create", "x", "--memory", "0"], "size");
    refused(&yard, &["create", "x", "--memory=-1"], "size");
    refused(&yard, &["create", "x", "--memory", "1e99"], "size");
    refused(&yard, &["create", "x", "--memory", "10XiB"], "size");
    refused(&yard, &["create", "x", "--memory", "1MiB"], "16 MiB");
    refused(&yard, &["create", "x", "--cpus", "0"], "CPUs");
    refused(&yard, &["create", "x", "--pids", "1"], "pids");
    refused(&yard, &["create", "x", "--nonsense", "1"], "--nonsense");
    refused(&yard, &["create", "x", "--image", "nope"], "nope");
    refused(&yard, &["create", "x", "--network", "lan"], "internet");
}

#[test]
fn errors_are_json_when_asked() {
    let yard = Yard::new();
    let error = &yard.json(&["inspect", "no-such"])["error"];
    assert_eq!(error["code"], "not_found");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("no-such")), "{error}");
}

#[test]
fn an_argument_list_of_three_mebibytes_is_an_error_of_its_own() {
    let yard = Yard::new();
    yard.ok(&["create", "a"]);
    let long = "x".repeat(100_000);
    let mut args = vec!["exec", "a", "--", "true"];
    args.extend(std::iter::repeat_n(long.as_str(), 19));
    assert_eq!(yard.garth(&args).code, 0, "what the kernel takes goes through");
    yard.ok(&["exec", "a", "--", "true"]);
}

#[test]
fn images_that_are_missing_truncated_or_hostile_are_refused() {
    let yard = Yard::new();
    refused(&yard, &["image", "import", "bad", "/no/such/file.tar"], "/no/such/file.tar");
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = file_header(100_000);
    builder.append_data(&mut header, "file", &vec![1u8; 100_000][..]).expect("entry");
    let whole = builder.into_inner().expect("tar");
    let cut = scratch(&yard, "cut.tar", &whole[..50_000]);
    refused(&yard, &["image", "import", "bad", &cut.to_string_lossy()], "truncated");
    for (name, path, link) in [("up", "../../etc/garth-evil", None), ("out", "l/garth-evil", Some("/etc"))] {
        let mut builder = tar::Builder::new(Vec::new());
        if let Some(target) = link {
            let mut header = file_header(0);
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, "l", target).expect("link");
        }
        let mut header = file_header(1);
        header.as_gnu_mut().expect("gnu").name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, &b"x"[..]).expect("entry");
        let file = scratch(&yard, &format!("{name}.tar"), &builder.into_inner().expect("tar"));
        let done = yard.garth(&["image", "import", name, &file.to_string_lossy()]);
        assert_ne!(done.code, 0, "{name} was taken");
        assert!(!std::path::Path::new("/etc/garth-evil").exists());
    }
    assert!(!yard.ok(&["image", "ls", "-q"]).contains("up"));
}

fn file_header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header
}
