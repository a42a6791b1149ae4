//! Streams that no agent would send.

use std::fs;
use std::os::unix::fs::symlink;

use http::StatusCode;
use tar::{Builder, EntryType, Header};

use super::{manifest, pack, root, unpack};
use crate::http::message;
use crate::support::{Agent, is_root};

const FILE: u8 = b'0';
const LINK: u8 = b'1';
const SYMLINK: u8 = b'2';
const DIRECTORY: u8 = b'5';
const OURS: u8 = b'Z';

/// A stream in the making.
struct Crafted(Builder<Vec<u8>>);

impl Crafted {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: u8, records: &[(&str, &[u8])], data: &[u8]) -> Self {
        let times = [("mtime", &b"1.000000000"[..])];
        self.0.append_pax_extensions(times.iter().chain(records).copied()).expect("records");
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(kind));
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        self.0.append(&header, data).expect("entry");
        self
    }

    fn named(self, kind: u8, path: &str, target: &str) -> Self {
        let data: &[u8] = if kind == FILE { b"attack" } else { b"" };
        self.entry(kind, &[("path", path.as_bytes()), ("linkpath", target.as_bytes())], data)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("stream")
    }
}

#[tokio::test]
async fn no_name_leads_out_of_the_root() {
    if !is_root("no_name_leads_out_of_the_root") {
        return;
    }
    let agent = Agent::start().await;
    let outside = agent.directory().join("outside");
    fs::create_dir(&outside).expect("directory");
    fs::write(outside.join("secret"), "secret").expect("file");
    let out = outside.display().to_string();
    let new = Crafted::new;
    let through = "leads through a link or file";
    let leads_out = "leads out of the root";
    let cases = [
        (new().named(SYMLINK, "a", &out).named(FILE, "a/new", ""), through),
        (new().named(SYMLINK, "a", &out).named(FILE, "a/b/new", ""), through),
        (new().named(SYMLINK, "a", "../outside").named(DIRECTORY, "a/new", ""), through),
        (new().named(SYMLINK, "a", &out).named(LINK, "stolen", "a/secret"), ""),
        (new().named(FILE, "there/new", ""), through),
        (new().named(DIRECTORY, "there/new", ""), through),
        (new().named(LINK, "stolen", "there/secret"), ""),
        (new().named(LINK, "stolen", "../outside/secret"), leads_out),
        (new().named(LINK, "stolen", "/etc/passwd"), leads_out),
        (new().named(FILE, "../outside/new", ""), leads_out),
        (new().named(FILE, &format!("{out}/new"), ""), leads_out),
        (new().named(FILE, "x/../../outside/new", ""), leads_out),
        (new().named(FILE, "x//y", ""), leads_out),
        (new().named(FILE, "x/.", ""), leads_out),
        (new().entry(FILE, &[("path", b"x\0y")], b"attack"), leads_out),
        (new().named(SYMLINK, "", &out), "the root is no directory"),
        (new().entry(OURS, &[("path", b"there/secret"), ("GARTH.word", b"deleted")], b""), through),
        (new().entry(OURS, &[("path", b"kept"), ("GARTH.word", b"deleted")], b""), "in no base"),
        (new().entry(OURS, &[("path", b""), ("GARTH.word", b"deleted")], b""), leads_out),
    ];
    for (number, (stream, expected)) in cases.into_iter().enumerate() {
        let query = root(&agent, &format!("root{number}"));
        let tree = agent.directory().join(format!("root{number}"));
        symlink(&out, tree.join("there")).expect("link");
        fs::write(tree.join("kept"), "kept").expect("file");
        let answer = unpack(&agent, &query, stream.bytes()).await;
        assert!(answer.status.is_client_error(), "{number}: {} {:?}", answer.status, answer.body);
        assert!(message(&answer).contains(expected), "{number}: {}", message(&answer));
        assert!(tree.join("kept").exists() && !tree.join("stolen").exists(), "{number}");
        let left: Vec<_> = fs::read_dir(&outside).expect("outside").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["secret"], "{number}");
        assert_eq!(fs::read_to_string(outside.join("secret")).expect("secret"), "secret");
    }
}

#[tokio::test]
async fn a_link_that_is_in_the_way_is_replaced_and_not_followed() {
    if !is_root("a_link_that_is_in_the_way_is_replaced_and_not_followed") {
        return;
    }
    let agent = Agent::start().await;
    let query = root(&agent, "root");
    let (tree, outside) = (agent.directory().join("root"), agent.directory().join("outside"));
    fs::create_dir(&outside).expect("directory");
    fs::write(outside.join("file"), "outside").expect("file");
    symlink(&outside, tree.join("a")).expect("link");
    symlink(outside.join("file"), tree.join("b")).expect("link");
    let stream = Crafted::new().named(DIRECTORY, "a", "").named(FILE, "a/file", "").named(FILE, "b", "");
    unpack(&agent, &query, stream.bytes()).await;
    assert_eq!(fs::read_to_string(outside.join("file")).expect("file"), "outside");
    for name in ["a/file", "b"] {
        assert_eq!(fs::read_to_string(tree.join(name)).expect("file"), "attack");
    }
}

#[tokio::test]
async fn damaged_cut_and_foreign_streams_are_refused() {
    if !is_root("damaged_cut_and_foreign_streams_are_refused") {
        return;
    }
    let agent = Agent::start().await;
    let (source, target) = (root(&agent, "from"), root(&agent, "to"));
    let tree = agent.directory().join("from");
    fs::create_dir(tree.join("directory")).expect("directory");
    fs::write(tree.join("directory/file"), vec![7; 3000]).expect("file");
    let sparse = fs::File::create(tree.join("sparse")).expect("file");
    sparse.set_len(1 << 20).expect("length");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"x", 1 << 19).expect("content");
    symlink("x", tree.join("symlink")).expect("link");
    let whole = pack(&agent, &source).await.body.to_vec();
    let mut cases: Vec<(String, Vec<u8>)> =
        (0..whole.len()).step_by(100).map(|length| (format!("cut at {length}"), whole[..length].to_vec())).collect();
    let data = whole.windows(9).position(|bytes| bytes == [7; 9]).expect("content");
    let mut flipped = whole.clone();
    flipped[data] ^= 1;
    cases.push(("another byte in a file".to_owned(), flipped));
    let text = |text: &[u8]| whole.windows(text.len()).position(|bytes| bytes == text).expect("text");
    for found in [&b"path=symlink"[..], b"mtime=", b"GARTH.digest="] {
        let mut other = whole.clone();
        let at = text(found) + found.len() - 1;
        other[at] ^= 1;
        cases.push((format!("another byte in {found:?}"), other));
    }
    cases.push(("more than there is".to_owned(), [&whole[..], b"x"].concat()));
    cases.push(("twice".to_owned(), [&whole[..], &whole[..]].concat()));
    cases.push(("garbage".to_owned(), b"garbage ".repeat(1000)));
    let mut foreign = Builder::new(Vec::new());
    foreign.follow_symlinks(false);
    foreign.append_dir_all("x", &tree).expect("tar");
    cases.push(("foreign".to_owned(), foreign.into_inner().expect("tar")));
    let runs = |runs: &[u64]| {
        let data: Vec<u8> = runs.iter().flat_map(|number| number.to_be_bytes()).chain([1; 10]).collect();
        Crafted::new().entry(FILE, &[("path", b"file"), ("GARTH.sparse", b"100")], &data).bytes()
    };
    for numbers in [&[0u64, 11][..], &[91, 10], &[u64::MAX, 10], &[0, u64::MAX], &[50, 0, 49, 0, 49, 10]] {
        cases.push((format!("runs {numbers:?}"), runs(numbers)));
    }
    let twice = Crafted::new().named(FILE, "b", "").named(FILE, "b", "");
    cases.push(("one name twice".to_owned(), twice.bytes()));
    cases.push(("out of order".to_owned(), Crafted::new().named(FILE, "b", "").named(FILE, "a", "").bytes()));
    let head = Crafted::new().entry(FILE, &[("path", &[b'x'; 17 << 20])], b"");
    cases.push(("a name without end".to_owned(), head.bytes()));
    for (name, stream) in cases {
        let answer = unpack(&agent, &target, stream).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}: {:?}", answer.body);
        assert!(message(&answer).contains("damaged"), "{name}: {}", message(&answer));
    }
    // Half of others' things is in the first.
    let target = root(&agent, "fresh");
    assert_eq!(unpack(&agent, &target, whole).await.status, StatusCode::OK);
    assert_eq!(manifest(&agent, &source).await["digest"], manifest(&agent, &target).await["digest"]);
}
