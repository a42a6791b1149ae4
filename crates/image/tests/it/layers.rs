//! docker-archives and OCI layouts: layers, whiteouts, digests, configuration.

use garth_image::{ErrorKind, Format};
use serde_json::json;

use crate::support::{Place, Tar, gzip, names, refused, sha256, zstd};

const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

fn config_of(layers: &[Vec<u8>]) -> serde_json::Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    json!({
        "architecture": ARCH, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "config": {"Env": ["PATH=/bin", "A=b=c"], "Entrypoint": ["/init"], "Cmd": ["serve"], "User": "app:app",
                   "WorkingDir": "/srv", "Labels": {"k": "v"}, "ExposedPorts": {"80/tcp": {}}},
        "history": [],
    })
}

/// As `docker save` wrote it until 24.
fn docker(layers: &[Vec<u8>]) -> Tar {
    docker_with(layers, &config_of(layers))
}

fn docker_with(layers: &[Vec<u8>], config: &serde_json::Value) -> Tar {
    let config = config.to_string();
    let config_name = format!("{}.json", sha256(config.as_bytes()));
    let mut tar = Tar::new();
    let mut paths = Vec::new();
    for layer in layers {
        let dir = sha256(layer);
        tar = tar.dir(&format!("{dir}/")).file(&format!("{dir}/layer.tar"), layer);
        paths.push(format!("{dir}/layer.tar"));
    }
    let manifest = json!([{"Config": config_name, "RepoTags": ["x:1"], "Layers": paths}]).to_string();
    tar.file(&config_name, config).file("manifest.json", manifest)
}

/// An OCI layout whose layers are compressed by `pack`.
fn oci(layers: &[Vec<u8>], pack: fn(&[u8]) -> Vec<u8>) -> Tar {
    let config = config_of(layers).to_string();
    let mut tar = Tar::new().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).dir("blobs/sha256/");
    let mut blob = |bytes: &[u8]| {
        let digest = sha256(bytes);
        tar = std::mem::take(&mut tar).file(&format!("blobs/sha256/{digest}"), bytes);
        json!({"digest": format!("sha256:{digest}"), "size": bytes.len(), "mediaType": "x"})
    };
    let config = blob(config.as_bytes());
    let layers: Vec<_> = layers.iter().map(|layer| blob(&pack(layer))).collect();
    let manifest = blob(json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().as_bytes());
    let note = json!({"digest": "sha256:0", "platform": {"architecture": "unknown", "os": "unknown"}});
    tar.file("index.json", json!({"schemaVersion": 2, "manifests": [note, manifest]}).to_string())
}

fn base() -> Vec<u8> {
    Tar::new()
        .dir("etc")
        .file("etc/a", "1")
        .file("etc/b", "1")
        .dir("var/d/e")
        .file("var/d/e/f", "1")
        .dir("usr/lib")
        .end()
}

#[test]
fn layers_lie_one_upon_the_other_in_each_format() {
    let top = Tar::new().file("etc/a", "2").file("etc/.wh.b", "").file("etc/c", "2").end();
    let layers = [base(), top];
    for archive in
        [docker(&layers).end(), gzip(&docker(&layers).end()), oci(&layers, gzip).end(), oci(&layers, zstd).end()]
    {
        let place = Place::new();
        let imported = place.import(&archive).unwrap();
        assert_eq!(place.text("etc/a"), "2");
        assert_eq!(names(&place.root.join("etc")), ["a", "c"]);
        assert_eq!(imported.config.env, ["PATH=/bin", "A=b=c"]);
        assert_eq!((imported.config.entrypoint, imported.config.cmd), (vec!["/init".into()], vec!["serve".into()]));
        assert_eq!(imported.config.user.as_deref(), Some("app:app"));
        assert_eq!(imported.config.workdir.as_deref(), Some("/srv"));
        assert_eq!(imported.config.labels["k"], "v");
    }
}

#[test]
fn an_opaque_directory_hides_what_is_below_and_nothing_of_its_own_layer() {
    for top in [
        Tar::new().dir("var/d").file("var/d/.wh..wh..opq", "").file("var/d/new", "2").file("var/d/e/g", "2"),
        Tar::new().dir("var/d").file("var/d/new", "2").file("var/d/e/g", "2").file("var/d/.wh..wh..opq", ""),
    ] {
        let place = Place::new();
        place.import(&docker(&[base(), top.end()]).end()).unwrap();
        assert_eq!(names(&place.root.join("var/d")), ["e", "new"]);
        assert_eq!(names(&place.root.join("var/d/e")), ["g"]);
    }
}

#[test]
fn a_whiteout_spares_what_its_own_layer_wrote() {
    for top in [
        Tar::new().file("etc/.wh.a", "").file("etc/a", "2"),
        Tar::new().file("etc/a", "2").file("etc/.wh.a", ""),
        Tar::new().hardlink("etc/a2", "etc/b").file("etc/.wh.b", "").file("etc/a", "2"),
    ] {
        let place = Place::new();
        place.import(&docker(&[base(), top.end()]).end()).unwrap();
        assert_eq!(place.text("etc/a"), "2");
        if place.has("etc/a2") {
            assert!(!place.has("etc/b"), "a new name for an old file does not save the old name");
        }
    }
}

#[test]
fn a_whole_directory_can_be_whited_out_and_made_anew() {
    let place = Place::new();
    let top = Tar::new().file("var/.wh.d", "").file(".wh..wh.plnk", "").file("no/such/.wh.x", "");
    let third = Tar::new().file("var/d", "a file now");
    place.import(&docker(&[base(), top.end(), third.end()]).end()).unwrap();
    assert_eq!(place.text("var/d"), "a file now");
    assert!(!place.has(".wh..wh.plnk") && !place.has("no"));
}

#[test]
fn whiteouts_in_a_plain_root_filesystem_are_files() {
    let place = Place::new();
    place.import(&Tar::new().file("a", "1").file(".wh.a", "").end()).unwrap();
    assert!(place.has("a") && place.has(".wh.a"));
}

#[test]
fn a_whiteout_cannot_leave_the_image() {
    let escape = |kind: &ErrorKind| matches!(kind, ErrorKind::Escape(_));
    for top in [
        Tar::new().file(".wh...", ""),
        Tar::new().file("etc/.wh..", ""),
        Tar::new().file("etc/.wh.", ""),
        Tar::new().file("../.wh.victim", ""),
        Tar::new().symlink("out", "/tmp").file("out/.wh.x", ""),
        Tar::new().symlink("out", "/tmp").file("out/.wh..wh..opq", ""),
    ] {
        refused(&docker(&[base(), top.end()]).end(), escape, "leaves the image");
    }
}

#[test]
fn a_layer_cannot_write_through_a_link_of_the_layer_below() {
    let escape = |kind: &ErrorKind| matches!(kind, ErrorKind::Escape(_));
    let below = Tar::new().symlink("out", "/etc").end();
    let above = Tar::new().file("out/garth-probe", "x").end();
    refused(&docker(&[below, above]).end(), escape, "out");
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    let mismatch = |kind: &ErrorKind| matches!(kind, ErrorKind::DigestMismatch(_));
    let other = Tar::new().file("etc/a", "changed").end();
    refused(&docker_with(&[other], &config_of(&[base()])).end(), mismatch, "does not match its digest");
    let mut archive = oci(&[base()], <[u8]>::to_vec).end();
    // A byte of a file in the stored layer: the outer tar's headers stay whole.
    let at = archive.windows(6).position(|window| window == b"etc/a\0").unwrap() + 512;
    archive[at] ^= 1;
    refused(&archive, mismatch, "does not match its digest");
}

#[test]
fn an_archive_that_lacks_or_doubles_something_is_refused() {
    let bad = |kind: &ErrorKind| matches!(kind, ErrorKind::BadDocument(_));
    let unknown = |kind: &ErrorKind| matches!(kind, ErrorKind::UnknownFormat(_));
    refused(&Tar::new().dir("blobs").end(), unknown, "manifest.json");
    let manifest = |text: &str| Tar::new().file("manifest.json", text).end();
    refused(&manifest("{"), bad, "manifest.json");
    refused(&manifest("[]"), |kind| *kind == ErrorKind::SeveralImages(0), "0 images");
    let one = r#"{"Config":"c","Layers":[]}"#;
    refused(&manifest(&format!("[{one},{one}]")), |kind| *kind == ErrorKind::SeveralImages(2), "2 images");
    refused(&manifest(&format!("[{one}]")), bad, "missing");
    refused(&manifest(r#"[{"Config":"../../etc/passwd","Layers":["/etc/shadow"]}]"#), bad, "missing");
    let index =
        |digest: &str| Tar::new().file("index.json", json!({"manifests": [{"digest": digest}]}).to_string()).end();
    refused(&index("sha256:../../../etc/passwd"), bad, "digest");
    refused(&index(&format!("sha256:{}", "0".repeat(64))), bad, "missing");
    let mut config = config_of(&[base()]);
    config["rootfs"]["diff_ids"] = json!([]);
    refused(&docker_with(&[base()], &config).end(), bad, "list of layers");
}

#[test]
fn a_configuration_no_process_could_have_is_refused() {
    let bad = |kind: &ErrorKind| matches!(kind, ErrorKind::BadDocument(_));
    for (field, value) in [
        ("Env", json!(["NOEQUALS"])),
        ("Env", json!(["A=\u{0}"])),
        ("Cmd", json!(["a\u{0}b"])),
        ("WorkingDir", json!("relative")),
        ("Env", json!("not a list")),
    ] {
        let mut config = config_of(&[base()]);
        config["config"][field] = value;
        refused(&docker_with(&[base()], &config).end(), bad, "not valid");
    }
}

#[test]
fn an_image_for_another_machine_is_refused() {
    let other = |kind: &ErrorKind| matches!(kind, ErrorKind::OtherPlatform { .. });
    let mut config = config_of(&[base()]);
    config["architecture"] = json!("s390x");
    refused(&docker_with(&[base()], &config).end(), other, "linux/s390x");
}

#[test]
fn of_several_variants_the_one_for_this_machine_is_taken() {
    let place = Place::new();
    let layers = [base()];
    let archive = oci(&layers, gzip);
    let text = String::from_utf8_lossy(&archive.open()).into_owned();
    let index: serde_json::Value =
        serde_json::from_str(text[text.find(r#"{"manifests""#).unwrap()..].trim_end_matches('\0')).unwrap();
    let mut ours = index["manifests"][1].clone();
    ours["platform"] = json!({"os": "linux", "architecture": ARCH});
    let theirs =
        json!({"digest": format!("sha256:{}", "1".repeat(64)), "platform": {"os": "linux", "architecture": "s390x"}});
    let second = json!({"manifests": [theirs, ours]}).to_string();
    // The later index.json counts, as in any tar.
    let archive = oci(&layers, gzip).file("index.json", second).end();
    place.import_as(&archive, Format::OciLayout).unwrap();
    assert_eq!(place.text("etc/a"), "1");
}

#[test]
fn a_bomb_of_layers_is_refused() {
    let too_much = |kind: &ErrorKind| matches!(kind, ErrorKind::TooMuch { .. });
    let layer = |n: u8| Tar::new().file("big", vec![n; 3 << 20]).end();
    let layers: Vec<_> = (0..7).map(layer).collect();
    refused(&oci(&layers, gzip).end(), too_much, "bytes");
}
