//! The built-in image, from this very machine.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use garth_image::{ErrorKind, host};
use garth_storage::{DriverChoice, Pool, PoolOptions, UsrSource};

#[test]
fn this_machine_makes_a_host_image_once() {
    let dir = tempfile::Builder::new().prefix("garth-image-").tempdir().unwrap();
    let options = PoolOptions { driver: DriverChoice::Overlay, ..PoolOptions::default() };
    let pool = Pool::open(dir.path(), &options).unwrap();
    let image = match host::ensure(&pool) {
        Err(error) if matches!(error.kind(), ErrorKind::HostNotMerged(_)) => {
            return println!("SKIP this_machine_makes_a_host_image_once: {error}");
        }
        other => other.unwrap(),
    };
    assert_eq!(image.meta.usr, UsrSource::Host);
    assert_eq!(host::ensure(&pool).unwrap(), image);
    assert_eq!(pool.images().unwrap().len(), 1);
    let root = image.rootfs();
    assert!(fs::read_link(root.join("bin")).unwrap().ends_with("usr/bin"));
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(root.join("home/user")).unwrap().uid(), 1000);
    let shadow = fs::read_to_string(root.join("etc/shadow")).unwrap();
    assert!(shadow.lines().all(|line| line.split(':').nth(1) == Some("*")), "an account is not locked");
    for path in ["etc/apt/auth.conf", "etc/pip.conf", "etc/ssh", "etc/fstab-"] {
        assert!(!root.join(path).exists(), "{path}");
    }
    if fs::metadata("/usr/local/etc").is_ok_and(|meta| meta.is_dir()) {
        let masked = image.rootfs().with_file_name("usr").join("upper/local/etc");
        let mut value = [0; 1];
        rustix::fs::getxattr(&masked, "trusted.overlay.opaque", &mut value).unwrap();
        assert_eq!(&value, b"y");
        assert!(!fs::metadata(&masked).unwrap().file_type().is_char_device());
    }
    pool.close().unwrap();
}
