//! Files over plain HTTP and envd's Filesystem.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use bytes::Bytes;
use connectrpc::ErrorCode;
use garth_protocol::filesystem::oneof::watch_dir_response::Event;
use garth_protocol::filesystem::{
    CreateWatcherRequest, EventType, FileType, GetWatcherEventsRequest, ListDirRequest, MakeDirRequest, MoveRequest,
    RemoveRequest, RemoveWatcherRequest, StatRequest, WatchDirRequest,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};

use crate::http::{Answer, http, message};
use crate::support::{Agent, Socket, is_root, resident, soon};
use connectrpc::client::ClientTransport;

async fn get(agent: &Agent, path: &Path) -> Answer {
    http(agent, Request::get(format!("/files?path={}", path.display())), Bytes::new()).await
}

async fn post(agent: &Agent, path: &Path, data: impl Into<Bytes>) -> Answer {
    let request = Request::post(format!("/files?path={}", path.display()));
    http(agent, request.header("content-type", "application/octet-stream"), data).await
}

#[tokio::test]
async fn health_is_answered() {
    let agent = Agent::start().await;
    assert_eq!(http(&agent, Request::get("/health"), "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(http(&agent, Request::delete("/files"), "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(http(&agent, Request::get("/nothing"), "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_upload_is_read_back_whole_and_in_ranges() {
    if !is_root("an_upload_is_read_back_whole_and_in_ranges") {
        return;
    }
    let agent = Agent::start().await;
    let path = agent.directory().join("new/deep/file.bin");
    let data: Vec<u8> = (0..300_000u32).map(|number| (number * 7) as u8).collect();
    let request = Request::post(format!("/files?path={}&username=65534", path.display()));
    let request = request.header("x-metadata-purpose", "test");
    let answer = http(&agent, request, data.clone()).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let entries: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(entries[0]["name"], "file.bin");
    assert_eq!(entries[0]["metadata"]["purpose"], "test");
    assert_eq!(fs::metadata(&path).expect("file").uid(), 65534);
    assert_eq!(fs::metadata(path.parent().expect("parent")).expect("parent").uid(), 65534);
    let whole = get(&agent, &path).await;
    assert_eq!((whole.status, whole.headers["content-length"].as_bytes()), (StatusCode::OK, &b"300000"[..]));
    assert!(whole.body == data);
    let range = Request::get(format!("/files?path={}", path.display())).header("range", "bytes=100-199");
    let range = http(&agent, range, "").await;
    assert_eq!((range.status, &range.body[..]), (StatusCode::PARTIAL_CONTENT, &data[100..200]));
    assert_eq!(range.headers["content-range"], "bytes 100-199/300000");
    let stat = StatRequest { path: path.display().to_string(), ..Default::default() };
    let entry = soon(agent.filesystem().stat(stat)).await.expect("stat").into_owned();
    let entry = entry.entry.as_option().expect("entry").clone();
    assert_eq!(entry.metadata.get("purpose").map(String::as_str), Some("test"));
}

#[tokio::test]
async fn an_upload_replaces_at_once_and_keeps_owner_and_mode() {
    if !is_root("an_upload_replaces_at_once_and_keeps_owner_and_mode") {
        return;
    }
    let agent = Agent::start().await;
    let path = agent.directory().join("script");
    fs::write(&path, "old").expect("file");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o751)).expect("mode");
    std::os::unix::fs::chown(&path, Some(7), Some(8)).expect("owner");
    let before = fs::metadata(&path).expect("file").ino();
    assert_eq!(post(&agent, &path, "new").await.status, StatusCode::OK);
    let after = fs::metadata(&path).expect("file");
    assert_eq!((after.mode() & 0o7777, after.uid(), after.gid()), (0o751, 7, 8));
    assert_ne!(after.ino(), before);
    assert_eq!(get(&agent, &path).await.body, "new");
    let empty = agent.directory().join("empty");
    assert_eq!(post(&agent, &empty, "").await.status, StatusCode::OK);
    assert_eq!(get(&agent, &empty).await.headers["content-length"], "0");
}

#[tokio::test]
async fn forms_bring_their_own_names() {
    if !is_root("forms_bring_their_own_names") {
        return;
    }
    let agent = Agent::start().await;
    let path = |name: &str| agent.directory().join(name).display().to_string();
    let part = |name: &str, text: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\r\n{text}\r\n", path(name))
    };
    let body = format!("{}{}--b--\r\n", part("one", "first"), part("sub/two", "second"));
    let request = Request::post("/files").header("content-type", "multipart/form-data; boundary=b");
    let answer = http(&agent, request, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert_eq!(fs::read_to_string(path("one")).expect("one"), "first");
    assert_eq!(fs::read_to_string(path("sub/two")).expect("two"), "second");
}

#[tokio::test]
async fn gzip_uploads_are_unpacked() {
    use std::io::Write;
    if !is_root("gzip_uploads_are_unpacked") {
        return;
    }
    let agent = Agent::start().await;
    let path = agent.directory().join("text");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&b"again and ".repeat(100_000)).expect("gzip");
    let request = Request::post(format!("/files?path={}", path.display())).header("content-encoding", "gzip");
    let answer = http(&agent, request, encoder.finish().expect("gzip")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(fs::metadata(&path).expect("file").len(), 1_000_000);
}

#[tokio::test]
async fn what_cannot_be_done_says_why_and_leaves_nothing() {
    if !is_root("what_cannot_be_done_says_why_and_leaves_nothing") {
        return;
    }
    let agent = Agent::start().await;
    let directory = agent.directory();
    let missing = get(&agent, &directory.join("missing")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(message(&missing).contains("does not exist"));
    let is_directory = get(&agent, directory).await;
    assert_eq!(is_directory.status, StatusCode::BAD_REQUEST);
    assert!(message(&is_directory).contains("is a directory"));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = directory.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("fifo");
    assert_eq!(get(&agent, &fifo).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(post(&agent, &fifo, "x").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(post(&agent, directory, "x").await.status, StatusCode::BAD_REQUEST);
    let user = http(&agent, Request::get("/files?path=/etc/passwd&username=nobody-here"), "").await;
    assert_eq!(user.status, StatusCode::UNAUTHORIZED);
    assert_eq!(message(&user), "invalid username: 'nobody-here'");
    let form = Request::post("/files").header("content-type", "multipart/form-data; boundary=b");
    let name = directory.join("half").display().to_string();
    let body = format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\nhalf of it");
    let cut = http(&agent, form, body).await;
    assert_eq!(cut.status, StatusCode::BAD_REQUEST);
    let mut left: Vec<_> = fs::read_dir(directory).expect("directory").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["config", "fifo", "socket", "state"]);
}

/// A filesystem of its own, unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path, size: &str) -> Option<Self> {
        fs::create_dir(path).expect("directory");
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(path)
            .status();
        status.is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_the_old_file_stays() {
    if !is_root("a_full_disk_is_said_and_the_old_file_stays") {
        return;
    }
    let agent = Agent::start().await;
    let mount = agent.directory().join("small");
    let Some(_disk) = SmallDisk::mount(&mount, "1m") else {
        println!("SKIP a_full_disk_is_said_and_the_old_file_stays: mount");
        return;
    };
    let file = mount.join("file");
    fs::write(&file, "old").expect("file");
    let answer = post(&agent, &file, vec![1u8; 4 << 20]).await;
    assert_eq!(answer.status, StatusCode::INSUFFICIENT_STORAGE);
    assert!(message(&answer).contains("not enough disk space"));
    assert_eq!(fs::read_to_string(&file).expect("file"), "old");
    assert_eq!(fs::read_dir(&mount).expect("mount").count(), 1);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4 << 20);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    tar.append_data(&mut header, "big", &vec![1u8; 4 << 20][..]).expect("tar");
    let request = Request::put(format!("/garth/tar?path={}", mount.display()));
    let answer = http(&agent, request, tar.into_inner().expect("tar")).await;
    assert_eq!(answer.status, StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(fs::read_dir(&mount).expect("mount").count(), 1);
}

#[tokio::test]
async fn a_tree_goes_out_and_in_as_tar() {
    if !is_root("a_tree_goes_out_and_in_as_tar") {
        return;
    }
    let agent = Agent::start().await;
    let from = agent.directory().join("from");
    fs::create_dir_all(from.join("sub")).expect("directories");
    fs::write(from.join("sub/file"), "content").expect("file");
    symlink("/etc", from.join("etc")).expect("link");
    let out = http(&agent, Request::get(format!("/garth/tar?path={}", from.display())), "").await;
    assert_eq!(out.status, StatusCode::OK);
    let to = agent.directory().join("to");
    fs::create_dir(&to).expect("directory");
    let into = http(&agent, Request::put(format!("/garth/tar?path={}", to.display())), out.body.clone()).await;
    assert_eq!(into.status, StatusCode::NO_CONTENT, "{:?}", into.body);
    assert_eq!(fs::read_to_string(to.join("from/sub/file")).expect("file"), "content");
    assert_eq!(fs::read_link(to.join("from/etc")).expect("link"), Path::new("/etc"));
    let missing = http(&agent, Request::put("/garth/tar?path=/no/such"), out.body.clone()).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let missing = http(&agent, Request::get("/garth/tar?path=/no/such"), "").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let damaged =
        http(&agent, Request::put(format!("/garth/tar?path={}", to.display())), b"not a tar".repeat(200)).await;
    assert_eq!(damaged.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_large_file_takes_little_memory_both_ways() {
    if !is_root("a_large_file_takes_little_memory_both_ways") {
        return;
    }
    let agent = Agent::start().await;
    // Far below the file's size, and far above what an allocator keeps of pieces in flight on a busy machine.
    let (size, little) = (256u64 << 20, 32u64 << 20);
    let large = agent.directory().join("large");
    fs::File::create(&large).expect("file").set_len(size).expect("length");
    let before = resident(agent.pid());
    let request = Request::get(format!("/files?path={}", large.display()));
    let request = request.body(Full::new(Bytes::new()).map_err(|never| match never {}).boxed()).expect("request");
    let (_, mut body) = soon(Socket(agent.socket()).send(request)).await.expect("answer").into_parts();
    let (mut read, mut most) = (0, 0);
    while let Some(frame) = soon(body.frame()).await {
        read += frame.expect("frame").data_ref().map_or(0, |data| data.len() as u64);
        most = most.max(resident(agent.pid()));
    }
    assert_eq!(read, size);
    assert!(most < before + little, "{before} became {most}");
    let copy = agent.directory().join("copy");
    let answer = soon(agent.upload(&copy, size)).await;
    assert_eq!(answer, StatusCode::OK);
    assert_eq!(fs::metadata(&copy).expect("copy").len(), size);
    let after = resident(agent.pid());
    assert!(after < before + little, "{before} became {after}");
}

#[tokio::test]
async fn directories_are_made_listed_moved_and_removed() {
    if !is_root("directories_are_made_listed_moved_and_removed") {
        return;
    }
    let agent = Agent::start().await;
    let files = agent.filesystem();
    let path = |name: &str| agent.directory().join("tree").join(name).display().to_string();
    let make = |name: &str| MakeDirRequest { path: path(name), ..Default::default() };
    soon(files.make_dir(make("a/b/c"))).await.expect("make");
    let again = soon(files.make_dir(make("a/b"))).await.expect_err("it exists");
    assert_eq!(again.code, ErrorCode::AlreadyExists);
    fs::write(path("a/file"), "x").expect("file");
    let over = soon(files.make_dir(make("a/file"))).await.expect_err("a file");
    assert_eq!(over.code, ErrorCode::InvalidArgument);
    let names = async |depth| {
        let list = ListDirRequest { path: path(""), depth, ..Default::default() };
        let entries = soon(files.list_dir(list)).await.expect("list").into_owned().entries;
        entries.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(0).await, ["a"]);
    assert_eq!(names(2).await, ["a", "b", "file"]);
    assert_eq!(names(9).await, ["a", "b", "c", "file"]);
    let from_to =
        |from: &str, to: &str| MoveRequest { source: path(from), destination: path(to), ..Default::default() };
    let moved = soon(files.r#move(from_to("a/file", "x/y/moved"))).await.expect("move").into_owned();
    let entry = moved.entry.as_option().expect("entry").clone();
    assert_eq!((entry.name.as_str(), entry.r#type.as_known()), ("moved", Some(FileType::FILE_TYPE_FILE)));
    let gone = soon(files.r#move(from_to("a/file", "z"))).await.expect_err("gone");
    assert_eq!(gone.code, ErrorCode::NotFound);
    for _ in 0..2 {
        let remove = RemoveRequest { path: path(""), ..Default::default() };
        soon(files.remove(remove)).await.expect("remove is idempotent");
    }
    assert!(!Path::new(&path("")).exists());
    let root = RemoveRequest { path: "/a/..".to_owned(), ..Default::default() };
    assert_eq!(soon(files.remove(root)).await.expect_err("the root").code, ErrorCode::InvalidArgument);
    let missing = ListDirRequest { path: path("nope"), ..Default::default() };
    assert_eq!(soon(files.list_dir(missing)).await.expect_err("missing").code, ErrorCode::NotFound);
}

#[tokio::test]
async fn changes_are_watched_also_in_new_directories() {
    let agent = Agent::start().await;
    let watched = agent.directory().join("watched");
    fs::create_dir(&watched).expect("directory");
    let request = WatchDirRequest {
        path: watched.display().to_string(),
        recursive: true,
        include_entry: true,
        ..Default::default()
    };
    let mut events = soon(agent.filesystem().watch_dir(request)).await.expect("watch");
    let first = soon(events.message()).await.expect("event").expect("start").to_owned_message().event;
    assert!(matches!(first, Some(Event::Start(_))));
    fs::create_dir(watched.join("new")).expect("directory");
    let mut seen = Vec::new();
    let mut stage = 0;
    while stage < 3 {
        let message = soon(events.message()).await.expect("event").expect("event").to_owned_message();
        let Some(Event::Filesystem(event)) = message.event else { continue };
        let kind = event.r#type.as_known().expect("known");
        seen.push((event.name.clone(), kind));
        match (stage, event.name.as_str(), kind) {
            (0, "new", EventType::EVENT_TYPE_CREATE) => {
                assert!(event.entry.is_set());
                fs::write(watched.join("new/file"), "x").expect("file");
                stage = 1;
            }
            (1, "new/file", EventType::EVENT_TYPE_WRITE | EventType::EVENT_TYPE_CREATE) => {
                fs::remove_file(watched.join("new/file")).expect("remove");
                stage = 2;
            }
            (2, "new/file", EventType::EVENT_TYPE_REMOVE) => stage = 3,
            _ => assert!(seen.len() < 20, "{seen:?}"),
        }
    }
}

#[tokio::test]
async fn watchers_can_be_polled() {
    let agent = Agent::start().await;
    let files = agent.filesystem();
    let watched = agent.directory().join("watched");
    fs::create_dir(&watched).expect("directory");
    let request = CreateWatcherRequest { path: watched.display().to_string(), ..Default::default() };
    let id = soon(files.create_watcher(request)).await.expect("watcher").into_owned().watcher_id;
    fs::write(watched.join("file"), "x").expect("file");
    let poll = || GetWatcherEventsRequest { watcher_id: id.clone(), ..Default::default() };
    let mut names = Vec::new();
    soon(async {
        while names.is_empty() {
            let events = files.get_watcher_events(poll()).await.expect("events").into_owned().events;
            names.extend(events.iter().map(|event| event.name.clone()));
        }
    })
    .await;
    assert_eq!(names[0], "file");
    let remove = RemoveWatcherRequest { watcher_id: id.clone(), ..Default::default() };
    soon(files.remove_watcher(remove)).await.expect("remove");
    assert_eq!(soon(files.get_watcher_events(poll())).await.expect_err("gone").code, ErrorCode::NotFound);
}
