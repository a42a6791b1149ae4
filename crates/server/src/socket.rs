//! The daemon's socket in the filesystem.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// Longest path of a socket (unix(7): sun_path).
const LONGEST: usize = 107;

/// The group whose members may use the daemon, and so become root: as `docker` for Docker.
const GROUP: &str = "garth";

/// Listens at `path`, in the place of what an earlier daemon left. The caller owns the data directory.
///
/// The socket appears with its owner and mode, so no one else can connect for a moment before.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    if path.as_os_str().len() > LONGEST {
        let message = format!("{} is longer than a socket's path can be ({LONGEST} bytes)", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let dir = Private::beside(path)?;
    let draft = dir.0.join("s");
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, Permissions::from_mode(0o660))?;
    if let Some(gid) = group(GROUP) {
        std::os::unix::fs::chown(&draft, None, Some(gid))?;
    }
    fs::rename(&draft, path)?;
    Ok(listener)
}

/// A directory that only we can enter, gone in the end.
struct Private(PathBuf);

impl Private {
    fn beside(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let dir = path.with_extension("new");
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What stays behind is removed by the next daemon.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A group's number from /etc/group: the daemon is one static binary and has no NSS.
fn group(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_takes_the_place_of_a_dead_one_and_others_cannot_connect() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("garth.sock");
        drop(listen(&path).expect("listen"));
        let _listener = listen(&path).expect("listen again");
        assert_eq!(fs::metadata(&path).expect("socket").permissions().mode() & 0o777, 0o660);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1, "something is left over");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_an_error_that_says_so() {
        let error = listen(&Path::new("/tmp").join("x".repeat(120))).expect_err("too long");
        assert!(error.to_string().contains("107 bytes"), "{error}");
    }
}
