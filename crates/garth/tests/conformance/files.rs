//! Files, copied both ways.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use crate::endpoint::{BOX, Check, Checked, Endpoint};

pub const CHECKS: &[Check] = &[
    Check { word: "cp", what: "a tree in and out keeps bytes, modes, links and empty directories", by: trees },
    Check { word: "cp", what: "takes names with spaces, quotes, newlines, dashes and other scripts", by: odd_names },
    Check { word: "cp", what: "of a directory's content, onto a directory, onto a new name", by: places },
    Check { word: "cp", what: "takes and gives a tar by standard input and output", by: streams },
    Check { word: "cp", what: "through a link of the sandbox reaches no file of this machine", by: links_stay_inside },
    Check { word: "cp", what: "of what is not there is `not_found`, exit 3; of a fifo ends", by: nothing_to_copy },
    Check { word: "cp", what: "starts a project that is stopped", by: copying_starts },
];

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

fn trees(at: &Endpoint) -> Checked {
    let (tree, out) = (at.scratch("tree"), at.scratch("tree-out"));
    std::fs::create_dir_all(tree.join("empty")).expect("dir");
    std::fs::write(tree.join("a"), vec![7u8; 3_000_000]).expect("file");
    std::fs::set_permissions(tree.join("a"), std::fs::Permissions::from_mode(0o751)).expect("mode");
    std::fs::hard_link(tree.join("a"), tree.join("b")).expect("link");
    symlink("a", tree.join("l")).expect("symlink");
    at.ok(&["cp", text(&tree), "box:tree"]);
    assert_eq!(at.sh(BOX, "cd ~/tree; stat -c %h:%s:%a b; readlink l; ls empty"), "2:3000000:751\na");
    at.ok(&["cp", "box:tree", text(&out)]);
    assert_eq!(std::fs::read(out.join("b")).expect("copied"), vec![7u8; 3_000_000]);
    assert_eq!(std::fs::metadata(out.join("a")).expect("copied").permissions().mode() & 0o7777, 0o751);
    assert_eq!(std::fs::read_link(out.join("l")).expect("link"), Path::new("a"));
    assert!(out.join("empty").is_dir());
    Ok(())
}

const ODD: [&str; 7] = ["a b", "-rf", "'q\"", "new\nline", "日本語", "back\\slash", "#%?&"];

fn odd_names(at: &Endpoint) -> Checked {
    let (tree, out) = (at.scratch("odd"), at.scratch("odd-out"));
    std::fs::create_dir(&tree).expect("dir");
    for name in ODD {
        std::fs::write(tree.join(name), name).expect("file");
    }
    at.ok(&["cp", text(&tree), "box:odd"]);
    at.ok(&["cp", "box:odd", text(&out)]);
    for name in ODD {
        assert_eq!(std::fs::read_to_string(out.join(name)).expect("copied"), name);
        let single = at.scratch("odd-single");
        at.ok(&["cp", &format!("box:odd/{name}"), text(&single)]);
        assert_eq!(std::fs::read_to_string(&single).expect("copied"), name);
    }
    Ok(())
}

fn places(at: &Endpoint) -> Checked {
    let tree = at.scratch("places");
    std::fs::create_dir(&tree).expect("dir");
    std::fs::write(tree.join("f"), "f").expect("file");
    at.sh(BOX, "mkdir ~/onto");
    at.ok(&["cp", &format!("{}/.", text(&tree)), "box:onto"]);
    at.ok(&["cp", text(&tree), "box:onto"]);
    at.ok(&["cp", text(&tree.join("f")), "box:onto/new"]);
    assert_eq!(at.sh(BOX, "cd ~/onto; cat f places/f new"), "fff");
    Ok(())
}

fn streams(at: &Endpoint) -> Checked {
    at.sh(BOX, "mkdir -p ~/stream/to; echo through > ~/stream/f");
    let tar = at.garth(&["cp", "box:stream/f", "-"]);
    assert_eq!(tar.code, 0, "{}", tar.stderr);
    let done = at.garth_with(&["cp", "-", "box:stream/to"], &tar.stdout);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(at.sh(BOX, "cat ~/stream/to/f"), "through");
    Ok(())
}

fn links_stay_inside(at: &Endpoint) -> Checked {
    let probe = at.scratch("garth-conformance-probe");
    std::fs::write(&probe, "x").expect("file");
    at.sh(BOX, "ln -s /var/tmp ~/evil; ln -s /etc ~/shown");
    let _ = at.garth(&["cp", text(&probe), "box:evil/garth-conformance-probe"]);
    assert!(!Path::new("/var/tmp/garth-conformance-probe").exists(), "a link of the sandbox reached this machine");
    let out = at.scratch("shown");
    at.ok(&["cp", "box:shown", text(&out)]);
    assert!(std::fs::symlink_metadata(&out).expect("copied").is_symlink());
    Ok(())
}

fn nothing_to_copy(at: &Endpoint) -> Checked {
    at.refused(&["cp", "box:no-such-file", text(&at.scratch("none"))], 3, "not_found");
    assert_eq!(at.garth(&["cp", "/no/such/file", "box:none"]).code, 3);
    at.sh(BOX, "mkfifo ~/fifo");
    let _ = at.garth(&["cp", "box:fifo", text(&at.scratch("fifo"))]);
    assert_eq!(at.sh(BOX, "echo alive"), "alive");
    Ok(())
}

fn copying_starts(at: &Endpoint) -> Checked {
    at.create("copied", &[]);
    let file = at.scratch("copied");
    std::fs::write(&file, "carried").expect("file");
    at.ok(&["cp", text(&file), "copied:file"]);
    assert_eq!(at.sh("copied", "cat ~/file"), "carried");
    at.ok(&["rm", "-f", "copied"]);
    Ok(())
}
