use std::path::Path;

use super::*;

/// A relocatable ELF file with a section `.modinfo`.
fn module(info: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let info = info.replace(' ', "\0").replace('_', " ").replace('~', "_");
    let mut bytes = vec![0; 64];
    bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    let info_at = bytes.len();
    bytes.extend_from_slice(info.as_bytes());
    bytes.push(0);
    let names_at = bytes.len();
    bytes.extend_from_slice(names);
    let table = bytes.len();
    let sections = [(0, 0, 0, 0), (1, 1, info_at, info.len() + 1), (10, 3, names_at, names.len())];
    for (name, kind, at, size) in sections {
        let mut section = [0; 64];
        section[..4].copy_from_slice(&u32::to_le_bytes(name));
        section[4..8].copy_from_slice(&u32::to_le_bytes(kind));
        section[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        section[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        bytes.extend_from_slice(&section);
    }
    // e_type, e_machine, e_version, e_shoff, e_ehsize, e_shentsize, e_shnum, e_shstrndx.
    for (at, value) in [(16, 1), (18, 62), (20, 1), (40, table as u16), (52, 64), (58, 64), (60, 3), (62, 2)] {
        bytes[at..at + 2].copy_from_slice(&u16::to_le_bytes(value));
    }
    bytes
}

fn tree(builtin: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
    let directory = tempfile::tempdir().expect("directory");
    let put = |path: &str, content: &[u8]| {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        fs::write(path, content).expect("file");
    };
    let builtin: String = builtin.split(' ').map(|name| format!("kernel/{name}.ko\n")).collect();
    put("modules.builtin", builtin.as_bytes());
    for (path, info) in files {
        put(path, &module(&format!("vermagic=6.1_SMP {info}")));
    }
    let tree = Tree::read(directory.path()).expect("tree");
    (directory, tree)
}

const BUILTIN: &str = "virtio-pci virtio_console overlay erofs ext4";

#[test]
fn each_module_comes_after_what_it_needs() {
    let (_directory, tree) = tree(
        BUILTIN,
        &[
            ("kernel/drivers/block/virtio_blk.ko", "depends=virtio,virtio-ring"),
            ("kernel/drivers/virtio/virtio.ko", "depends="),
            ("kernel/drivers/virtio/virtio_ring.ko", "depends=virtio softdep=pre:_crc32c-generic_absent_post:_vsock"),
            ("kernel/crypto/crc32c_generic.ko", "depends="),
            ("kernel/drivers/net/virtio_net.ko", "depends=virtio"),
            ("kernel/drivers/net/other.ko", "depends=virtio"),
        ],
    );
    let found = tree.find("6.1").expect("modules");
    let names: Vec<&str> = found.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(names, ["virtio", "crc32c_generic", "virtio_ring", "virtio_blk", "virtio_net"]);
    let missing =
        ["virtio_mmio", "virtio_rng", "virtio_balloon", "vsock", "vmw_vsock_virtio_transport", "virtiofs", "vmgenid"];
    assert_eq!(found.missing, missing);
}

#[test]
fn a_kernel_without_what_every_guest_needs_is_refused() {
    let (_directory, tree) = tree("virtio_blk overlay ext4", &[]);
    let error = tree.find("6.1").map(drop).expect_err("no erofs");
    assert_eq!(*error.kind(), ErrorKind::NoModule("erofs".into()));
}

#[test]
fn a_dependency_that_is_not_there_is_named() {
    let (_directory, tree) = tree(BUILTIN, &[("virtio_blk.ko", "depends=gone")]);
    assert_eq!(*tree.find("6.1").map(drop).expect_err("gone").kind(), ErrorKind::NoModule("gone".into()));
}

#[test]
fn modules_of_another_kernel_are_refused() {
    let (_directory, tree) = tree(BUILTIN, &[("virtio_blk.ko", "depends=")]);
    let error = tree.find("6.12").map(drop).expect_err("another release");
    assert_eq!(*error.kind(), ErrorKind::OtherModules { kernel: "6.12".into(), modules: "6.1".into() });
}

#[test]
fn modules_in_a_circle_end() {
    let (_directory, tree) = tree(BUILTIN, &[("virtio_blk.ko", "depends=a"), ("a.ko", "depends=virtio~blk")]);
    assert_eq!(tree.find("6.1").expect("modules").modules.len(), 2);
}

#[test]
fn a_file_that_is_no_module_is_damaged() {
    let (directory, _) = tree(BUILTIN, &[]);
    let path = directory.path().join("virtio_blk.ko");
    fs::write(&path, "text").expect("file");
    let error = Tree::read(directory.path()).expect("tree").find("6.1").map(drop).expect_err("no module");
    assert_eq!(*error.kind(), ErrorKind::Truncated(path));
}

#[test]
fn links_out_of_the_tree_are_not_followed() {
    let (directory, _) = tree(BUILTIN, &[]);
    std::os::unix::fs::symlink("/", directory.path().join("build")).expect("link");
    assert!(Tree::read(Path::new(directory.path())).expect("tree").files.is_empty());
}
