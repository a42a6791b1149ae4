use serde::{Deserialize, Serialize};

/// A directory of the host that a sandbox sees, at the path that it is listed under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The directory, on the host.
    pub host: String,
    /// Whether the sandbox may only read it.
    #[serde(default)]
    pub read_only: bool,
}

/// More than this do not fit into one message to a sandbox that starts.
pub(crate) const MOST_VOLUMES: usize = 16;

/// What the sandbox's own boundary is made of.
const OURS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Why a path is not taken as a volume's, on either side; `None` when it is.
pub(crate) fn wrong_path(path: &str) -> Option<&'static str> {
    let parts = || path.split('/').skip(1);
    if !path.starts_with('/') {
        Some("does not start with '/'")
    } else if path.contains('\0') || path.len() > 4000 {
        Some("is no path")
    } else if parts().any(|part| part.is_empty() || part == "." || part == "..") {
        // The root itself is one empty part.
        Some("is the root, or has '.', '..' or an empty part in it")
    } else {
        None
    }
}

/// The same, of where it is in the sandbox.
pub(crate) fn wrong_place(path: &str) -> Option<&'static str> {
    let is_ours = |ours: &&str| path.strip_prefix(*ours).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    wrong_path(path).or_else(|| OURS.iter().any(is_ours).then_some("is below /proc, /sys or /dev"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_mean_another_are_refused() {
        for path in ["", "a", "/", "//a", "/a/", "/a/../b", "/a/./b", "/a\0"] {
            assert!(wrong_path(path).is_some(), "{path:?}");
        }
        assert_eq!(wrong_path("/home/me/a b:c"), None);
    }

    #[test]
    fn nothing_covers_the_boundary() {
        for path in ["/proc", "/proc/sys", "/sys/fs/cgroup", "/dev/shm", "/"] {
            assert!(wrong_place(path).is_some(), "{path:?}");
        }
        assert_eq!(wrong_place("/process"), None);
    }
}
