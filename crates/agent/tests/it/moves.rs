//! A whole root from one agent to another.

mod attacks;
mod base;
mod listing;
mod tree;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use connectrpc::ConnectError;
use connectrpc::client::ClientTransport;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::http::{Answer, http, message};
use crate::support::{Agent, Socket, is_root, resident, soon};
use listing::{assert_same, listing};

async fn pack(agent: &Agent, query: &str) -> Answer {
    http(agent, Request::get(format!("/garth/move?{query}")), "").await
}

async fn unpack(agent: &Agent, query: &str, stream: impl Into<bytes::Bytes>) -> Answer {
    http(agent, Request::put(format!("/garth/move?{query}")), stream).await
}

async fn manifest(agent: &Agent, query: &str) -> Value {
    let answer = http(agent, Request::get(format!("/garth/manifest?{query}")), "").await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.json()
}

/// Streams from one to the other, and returns the answer and the most memory that either had meanwhile.
async fn carry(from: &Agent, from_query: &str, to: &Agent, to_query: &str) -> (Value, u64) {
    let empty = http_body_util::Empty::new().map_err(|never| match never {}).boxed();
    let request = Request::get(format!("/garth/move?{from_query}")).body(empty).expect("request");
    let (head, body) = soon(Socket(from.socket()).send(request)).await.expect("answer").into_parts();
    assert_eq!(head.status, StatusCode::OK);
    let most = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let watched = std::sync::Arc::clone(&most);
    let (one, other) = (from.pid(), to.pid());
    let mut pieces = 0u64;
    let body = body.map_frame(move |frame| {
        pieces += 1;
        if pieces.is_multiple_of(64) {
            watched.fetch_max(resident(one).max(resident(other)), std::sync::atomic::Ordering::Relaxed);
        }
        frame
    });
    let body = body.map_err(|error| ConnectError::unavailable(error.to_string())).boxed();
    let request = Request::put(format!("/garth/move?{to_query}")).body(body).expect("request");
    let response = Socket(to.socket()).send(request).await.expect("answer");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("body").to_bytes();
    assert_eq!(head.status, StatusCode::OK, "{body:?}");
    (serde_json::from_slice(&body).expect("JSON"), most.load(std::sync::atomic::Ordering::Relaxed))
}

/// The query for a root of this name beside an agent's socket.
fn root(agent: &Agent, name: &str) -> String {
    let path = agent.directory().join(name);
    fs::create_dir_all(&path).expect("root");
    format!("root={}", path.display())
}

#[tokio::test]
async fn everything_about_every_file_moves() {
    if !is_root("everything_about_every_file_moves") {
        return;
    }
    let (from, to) = (Agent::start().await, Agent::start().await);
    let (source, target) = (root(&from, "root"), root(&to, "root"));
    tree::make(&from.directory().join("root"));
    let (answer, _) = carry(&from, &source, &to, &target).await;
    assert_eq!(answer["skipped_count"], 0, "{answer}");
    let (before, after) = (listing(&from.directory().join("root")), listing(&to.directory().join("root")));
    assert!(before.len() > tree::FEWEST, "{}", before.len());
    for (path, expected) in &before {
        let path_text = String::from_utf8_lossy(path);
        let is_socket = expected.contains("Socket");
        assert_eq!(after.get(path), (!is_socket).then_some(expected), "{path_text}");
    }
    assert_eq!(after.len() + 1, before.len());
    let (one, other) = (manifest(&from, &source).await, manifest(&to, &target).await);
    assert_eq!(one["digest"], other["digest"]);
    assert_eq!(one["digest"], answer["digest"]);
    assert_eq!(answer["kept"]["digest"], answer["digest"]);
    assert_eq!(one["entries"], after.len());
    assert!(fs::metadata(to.directory().join("root/sparse")).expect("sparse").blocks() < 1 << 10);
}

#[tokio::test]
async fn a_move_replaces_what_is_in_its_way_and_nothing_else() {
    if !is_root("a_move_replaces_what_is_in_its_way_and_nothing_else") {
        return;
    }
    let (from, to) = (Agent::start().await, Agent::start().await);
    let (source, target) = (root(&from, "root"), root(&to, "root"));
    let (old, new) = (to.directory().join("root"), from.directory().join("root"));
    fs::create_dir_all(old.join("file/was/a/directory")).expect("directory");
    fs::create_dir(old.join("stays")).expect("directory");
    symlink("/etc", old.join("directory")).expect("link");
    fs::write(old.join("link"), "file").expect("file");
    fs::write(new.join("file"), "new").expect("file");
    fs::create_dir(new.join("directory")).expect("directory");
    fs::write(new.join("directory/inside"), "x").expect("file");
    symlink("nowhere", new.join("link")).expect("link");
    carry(&from, &source, &to, &target).await;
    let mut before = listing(&new);
    let after = listing(&old);
    before.insert(b"stays".to_vec(), after[&b"stays"[..]].clone());
    assert_eq!(before, after);
    assert!(!Path::new("/etc/inside").exists());
}

#[tokio::test]
async fn nothing_below_other_mounts_moves() {
    if !is_root("nothing_below_other_mounts_moves") {
        return;
    }
    let source = tempfile::tempdir().expect("directory");
    let target = tempfile::tempdir().expect("directory");
    for name in ["tmp", "same", "etc"] {
        fs::create_dir(source.path().join(name)).expect("directory");
    }
    fs::write(source.path().join("etc/hosts"), "hosts").expect("file");
    fs::create_dir(target.path().join("etc")).expect("directory");
    fs::create_dir(target.path().join("volume")).expect("directory");
    // A filesystem, and a directory and a file of the same filesystem, which have its device number.
    let script = format!(
        "cd {}; mount -t tmpfs none tmp; touch tmp/x; mount --bind etc same; mount --bind /etc/hostname etc/hosts",
        source.path().display()
    );
    let from = Agent::start_after(&script).await;
    let to = Agent::start_after(&format!("mount -t tmpfs none {}/volume", target.path().display())).await;
    let (source_query, target_query) =
        (format!("root={}", source.path().display()), format!("root={}", target.path().display()));
    let (answer, _) = carry(&from, &source_query, &to, &target_query).await;
    assert_eq!(answer["mounts"], serde_json::json!(["/etc/hosts", "/same", "/tmp"]));
    assert_eq!(answer["entries"], 2);
    let paths: Vec<Vec<u8>> = listing(target.path()).into_keys().collect();
    assert_eq!(paths, [&b""[..], b"etc", b"same", b"tmp", b"volume"]);
    let here = manifest(&to, &format!("{target_query}&omit=/etc/hosts&omit=/same&omit=/tmp")).await;
    assert_eq!((&here["digest"], &here["mounts"][0]), (&answer["kept"]["digest"], &"/volume".into()));
    // The other way there is something to lose.
    fs::write(target.path().join("tmp/content"), "x").expect("file");
    let back = unpack(&from, &source_query, pack(&to, &target_query).await.body).await;
    assert_eq!(back.status, StatusCode::CONFLICT, "{:?}", back.body);
    assert!(message(&back).contains("/tmp' is a mount here"), "{}", message(&back));
}

#[tokio::test]
async fn what_is_omitted_is_not_there() {
    if !is_root("what_is_omitted_is_not_there") {
        return;
    }
    let agent = Agent::start().await;
    let query = root(&agent, "root");
    let tree = agent.directory().join("root");
    // Its removal changes the time of the root, which has to be the same for both.
    let date = || {
        let time = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, &tree, &times, rustix::fs::AtFlags::empty()).expect("time");
    };
    fs::create_dir_all(tree.join("lost+found/x")).expect("directory");
    fs::write(tree.join("file"), "x").expect("file");
    date();
    let with = manifest(&agent, &query).await;
    let omitted = manifest(&agent, &format!("{query}&omit=/lost%2Bfound")).await;
    fs::remove_dir_all(tree.join("lost+found")).expect("remove");
    date();
    let without = manifest(&agent, &query).await;
    assert_ne!(with["digest"], without["digest"]);
    assert_eq!(omitted, without);
}

#[tokio::test]
async fn every_difference_changes_the_digest() {
    if !is_root("every_difference_changes_the_digest") {
        return;
    }
    let agent = Agent::start().await;
    let query = root(&agent, "root");
    let tree = agent.directory().join("root");
    tree::make(&tree);
    let mut seen = vec![manifest(&agent, &query).await["digest"].clone()];
    for change in tree::CHANGES {
        let status = std::process::Command::new("sh").args(["-ec", change]).current_dir(&tree).status();
        assert!(status.expect("sh").success(), "{change}");
        let digest = manifest(&agent, &query).await["digest"].clone();
        assert!(!seen.contains(&digest), "{change}");
        seen.push(digest);
    }
}

#[tokio::test]
async fn what_the_receiver_may_not_make_is_named() {
    if !is_root("what_the_receiver_may_not_make_is_named") {
        return;
    }
    let from = Agent::start().await;
    // Without CAP_SYS_ADMIN no mount either: those are made before.
    let mut command = std::process::Command::new("setpriv");
    command.args(["--bounding-set", "-mknod,-sys_admin", "--", env!("CARGO_BIN_EXE_garth-agent")]);
    let works = std::process::Command::new("setpriv").args(["--bounding-set", "-mknod", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("SKIP what_the_receiver_may_not_make_is_named: setpriv");
        return;
    }
    let to = Agent::start_by(command, tempfile::tempdir().expect("directory"), "{}").await;
    let (source, target) = (root(&from, "root"), root(&to, "root"));
    let tree = from.directory().join("root");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let device = rustix::fs::makedev(1, 3);
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("device"), kind, mode, device).expect("device");
    fs::hard_link(tree.join("device"), tree.join("other")).expect("link");
    fs::write(tree.join("file"), "x").expect("file");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(tree.join("file"), "trusted.x", b"1", flags).expect("trusted");
    rustix::fs::lsetxattr(tree.join("file"), "user.x", b"1", flags).expect("user");
    let (answer, _) = carry(&from, &source, &to, &target).await;
    let skipped = serde_json::json!([
        { "path": "/device", "what": "device" },
        { "path": "/file", "what": "trusted.x" },
        { "path": "/other", "what": "link" },
    ]);
    assert_eq!((&answer["skipped"], &answer["skipped_count"]), (&skipped, &3.into()));
    assert_ne!(answer["digest"], answer["kept"]["digest"]);
    let here = manifest(&to, &target).await;
    assert_eq!(here["digest"], answer["kept"]["digest"]);
    assert_eq!(manifest(&from, &source).await["digest"], answer["digest"]);
}

#[tokio::test]
async fn an_owner_that_the_receiver_does_not_have_is_named() {
    if !is_root("an_owner_that_the_receiver_does_not_have_is_named") {
        return;
    }
    let works = std::process::Command::new("unshare").args(["--map-root-user", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("SKIP an_owner_that_the_receiver_does_not_have_is_named: user namespaces");
        return;
    }
    let from = Agent::start().await;
    let mut command = std::process::Command::new("unshare");
    command.args(["--map-root-user", "--", env!("CARGO_BIN_EXE_garth-agent")]);
    let to = Agent::start_by(command, tempfile::tempdir().expect("directory"), "{}").await;
    let (source, target) = (root(&from, "root"), root(&to, "root"));
    let file = from.directory().join("root/file");
    fs::write(&file, "x").expect("file");
    std::os::unix::fs::chown(&file, Some(70_000), Some(5)).expect("owner");
    let answer = unpack(&to, &target, pack(&from, &source).await.body).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{:?}", answer.body);
    assert_eq!(message(&answer), "path '/file' is owned by 70000:5, which this sandbox does not have");
}

#[tokio::test]
async fn what_changes_while_it_is_packed_is_refused() {
    use std::os::unix::fs::FileExt;
    if !is_root("what_changes_while_it_is_packed_is_refused") {
        return;
    }
    let (from, to) = (Agent::start().await, Agent::start().await);
    let (source, target) = (root(&from, "root"), root(&to, "root"));
    let file = fs::File::create(from.directory().join("root/file")).expect("file");
    file.write_all_at(&vec![1; 32 << 20], 0).expect("content");
    let empty = http_body_util::Empty::new().map_err(|never| match never {}).boxed();
    let request = Request::get(format!("/garth/move?{source}")).body(empty).expect("request");
    let (_, mut body) = soon(Socket(from.socket()).send(request)).await.expect("answer").into_parts();
    let mut stream = soon(body.frame()).await.expect("frame").expect("frame").into_data().expect("data").to_vec();
    // The rest of it does not fit into what lies between here and the agent.
    file.write_all_at(b"changed", 5).expect("content");
    stream.extend(soon(body.collect()).await.expect("the rest").to_bytes());
    let answer = unpack(&to, &target, stream).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(message(&answer), "the source gave up: path '/file' changed while it was read");
}

#[tokio::test]
async fn large_files_and_directories_move_in_little_memory() {
    if !is_root("large_files_and_directories_move_in_little_memory") {
        return;
    }
    let (from, to) = (Agent::start().await, Agent::start().await);
    let (source, target) = (root(&from, "root"), root(&to, "root"));
    let tree = from.directory().join("root");
    let data: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    let mut real = fs::File::create(tree.join("real")).expect("file");
    for _ in 0..300 {
        std::io::Write::write_all(&mut real, &data).expect("content");
    }
    let sparse = fs::File::create(tree.join("sparse")).expect("file");
    sparse.set_len(2 << 30).expect("length");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1 << 30).expect("content");
    let before = resident(from.pid()).max(resident(to.pid()));
    let (answer, most) = carry(&from, &source, &to, &target).await;
    assert_eq!(answer["bytes"], (300u64 << 20) + (2 << 30));
    // A tenth of the file: pieces are under way on a busy machine.
    assert!(most < before + (32 << 20), "{before} became {most}");
    assert_same(&tree, &to.directory().join("root"));
}

#[tokio::test]
async fn scopes_that_make_no_sense_are_refused() {
    let agent = Agent::start().await;
    let status = async |query: &str| pack(&agent, query).await.status;
    assert_eq!(status("root=/no/such").await, StatusCode::NOT_FOUND);
    assert_eq!(status("root=relative").await, StatusCode::BAD_REQUEST);
    assert_eq!(status("root=/etc/passwd").await, StatusCode::BAD_REQUEST);
    assert_eq!(status("base=/usr").await, StatusCode::BAD_REQUEST);
    assert_eq!(status("base=/usr=/no/such").await, StatusCode::NOT_FOUND);
    assert_eq!(status("omit=/a/../b").await, StatusCode::BAD_REQUEST);
    assert_eq!(status("omit=a").await, StatusCode::BAD_REQUEST);
    assert_eq!(unpack(&agent, "root=/no/such", "").await.status, StatusCode::NOT_FOUND);
}
