//! A Debian with container engines, made once and kept beside the test programs, so that it goes with `cargo clean`; or
//! this machine's own /usr, where that has them.
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::stage::{Why, missing};
use crate::yard::Yard;

const SUITE: &str = "bookworm";
const PACKAGES: &str = "docker.io,docker-compose,iptables,podman,buildah,runc,crun,uidmap,slirp4netns,fuse-overlayfs,\
                        netavark,aardvark-dns,procps,iproute2,python3,busybox-static,passwd,systemd,dbus,\
                        ca-certificates,redis-server,nginx-light,postgresql,nftables,btrfs-progs";

/// The image with container engines: `host` when `GARTH_TEST_ENGINES` is `machine`.
pub fn image(yard: &Yard) -> Result<&'static str, Why> {
    if std::env::var_os("GARTH_TEST_ENGINES").is_some_and(|whose| whose == "machine") {
        return Ok("host");
    }
    yard.ok(&["image", "import", "work", &tar()?.to_string_lossy()]);
    Ok("work")
}

/// The archive of it.
fn tar() -> Result<PathBuf, Why> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sysbox");
    std::fs::create_dir_all(&cache).expect("cache");
    let tar = cache.join("rootfs-1.tar");
    if tar.exists() {
        return Ok(tar);
    }
    let new = cache.join(format!("rootfs.{}.new.tar", std::process::id()));
    let made = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--components=main", &format!("--include={PACKAGES}"), SUITE])
        .arg(&new)
        .output();
    match made {
        Ok(out) if out.status.success() => std::fs::rename(&new, &tar).expect("rename"),
        Ok(out) => {
            let _ = std::fs::remove_file(&new);
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            return missing(format!("a Debian from the machine's mirror: {}", said.lines().last().unwrap_or_default()));
        }
        Err(_) => return missing("mmdebstrap"),
    }
    Ok(tar)
}
