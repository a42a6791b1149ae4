//! Of a `/usr` that lies over a base, what differs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::listing::{assert_same, listing};
use super::{carry, manifest};
use crate::support::{Agent, is_root};

/// What both ends have to begin with.
const BASE: &str = "
mkdir -p bin lib/deep/er share/doc opaque becomes-file unchanged/dir
for name in bin/same bin/gone bin/edited bin/touched bin/copied bin/mode bin/owner bin/attribute lib/deep/er/file share/doc/a \
    opaque/old opaque/kept becomes-file/x becomes-directory unchanged/dir/file bin/in-place bin/a-link-to; do
    echo $name > $name
done
ln bin/same bin/same-too
ln -s same bin/symlink
find . ! -type d -exec touch -hd @1000000000.123456789 {} +
find . -type d -exec touch -d @1000000000.5 {} +
";

/// What a project does to it.
const CHANGES: &str = "
rm -r bin/gone share
echo edited > bin/edited
echo in-plac3 > bin/in-place; touch -d @1000000000.123456789 bin/in-place
touch bin/touched
chmod 600 bin/copied; chmod 644 bin/copied
chmod 4755 bin/mode
chown 5:6 bin/owner
ln -sfn other bin/symlink
ln bin/a-link-to bin/linked
rm -r opaque; mkdir opaque; echo kept > opaque/kept; touch -d @1000000000 opaque/kept opaque
rm -r becomes-file; echo file > becomes-file
rm becomes-directory; mkdir becomes-directory; echo x > becomes-directory/x
echo new > lib/deep/er/new; touch -d @1000000000.5 lib/deep/er
mkdir -p new/tree; echo x > new/tree/file; ln new/tree/file new/link
mknod new/device c 1 3; mkfifo new/fifo
";

struct End {
    _directory: tempfile::TempDir,
    agent: Agent,
    root: PathBuf,
    upper: PathBuf,
    query: String,
}

impl End {
    /// A root whose `usr` is an overlay over a base of its own, with one script run in the base and one in the overlay.
    async fn start(changes: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        for name in ["root/usr", "root/etc", "base", "upper", "work"] {
            fs::create_dir_all(path(name)).expect("directory");
        }
        let status = Command::new("sh").args(["-ec", BASE]).current_dir(path("base")).status();
        assert!(status.expect("sh").success());
        let at = directory.path().display();
        let script = format!(
            "cd {at}; mount -t overlay -o lowerdir={at}/base,upperdir={at}/upper,workdir={at}/work none root/usr
             (cd root/usr; {changes}\n); cd /"
        );
        let agent = Agent::start_after(&script).await;
        let query = format!("root={at}/root&base=/usr={at}/base");
        Self { root: agent.seen(&path("root")), upper: path("upper"), query, agent, _directory: directory }
    }
}

fn can_mount_overlays(test: &str) -> bool {
    let script =
        "mount -t tmpfs none /tmp; cd /tmp; mkdir l u w m; mount -t overlay -o lowerdir=l,upperdir=u,workdir=w none m";
    let status = Command::new("unshare").args(["--mount", "--", "sh", "-ec", script]).status();
    let works = is_root(test) && status.is_ok_and(|status| status.success());
    if !works {
        println!("SKIP {test}: overlay mounts");
    }
    works
}

#[tokio::test]
async fn only_what_differs_from_the_base_moves() {
    if !can_mount_overlays("only_what_differs_from_the_base_moves") {
        return;
    }
    let (from, to) = (End::start(CHANGES).await, End::start("").await);
    fs::write(from.root.join("etc/file"), "x").expect("file");
    let attribute = from.root.join("usr/bin/attribute");
    rustix::fs::lsetxattr(attribute, "user.x", b"1", rustix::fs::XattrFlags::empty()).expect("attribute");
    let (answer, _) = carry(&from.agent, &from.query, &to.agent, &to.query).await;
    assert_eq!((&answer["skipped_count"], &answer["mounts"]), (&0.into(), &serde_json::json!([])));
    assert_same(&from.root, &to.root);
    for name in ["bin/same", "bin/same-too", "bin/copied", "unchanged", "lib/deep/er/file", "opaque/kept"] {
        let is_upper = to.upper.join(name).symlink_metadata().is_ok();
        assert_eq!(is_upper, name.starts_with("opaque"), "{name}");
    }
    assert!(from.upper.join("bin/copied").exists());
    let (one, other) = (manifest(&from.agent, &from.query).await, manifest(&to.agent, &to.query).await);
    assert_eq!(one, other);
    assert_eq!((&one["digest"], &one["digest"]), (&answer["digest"], &answer["kept"]["digest"]));
}

#[tokio::test]
async fn an_untouched_base_costs_nothing() {
    if !can_mount_overlays("an_untouched_base_costs_nothing") {
        return;
    }
    let (from, to) = (End::start("").await, End::start("").await);
    let (answer, _) = carry(&from.agent, &from.query, &to.agent, &to.query).await;
    assert_eq!((&answer["entries"], &answer["bytes"]), (&3.into(), &0.into()));
    assert_eq!(fs::read_dir(&to.upper).expect("upper").count(), 0);
    assert!(listing(Path::new(&to.root)).len() > 20);
}

#[tokio::test]
async fn a_socket_in_place_of_a_file_of_the_base_leaves_neither() {
    if !can_mount_overlays("a_socket_in_place_of_a_file_of_the_base_leaves_neither") {
        return;
    }
    let (from, to) = (End::start("rm bin/gone").await, End::start("").await);
    let (socket, mode) = (from.root.join("usr/bin/gone"), rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &socket, rustix::fs::FileType::Socket, mode, 0).expect("socket");
    let (answer, _) = carry(&from.agent, &from.query, &to.agent, &to.query).await;
    assert!(!to.root.join("usr/bin/gone").exists());
    assert_eq!(manifest(&to.agent, &to.query).await["digest"], answer["digest"]);
}

#[tokio::test]
async fn what_moved_there_moves_back() {
    if !can_mount_overlays("what_moved_there_moves_back") {
        return;
    }
    let ends = [End::start(CHANGES).await, End::start("").await, End::start("").await];
    for pair in ends.windows(2) {
        carry(&pair[0].agent, &pair[0].query, &pair[1].agent, &pair[1].query).await;
    }
    assert_same(&ends[0].root, &ends[2].root);
    assert_eq!(manifest(&ends[0].agent, &ends[0].query).await, manifest(&ends[2].agent, &ends[2].query).await);
}
