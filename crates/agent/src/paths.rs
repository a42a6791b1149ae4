//! Paths as clients write them.

use std::path::{Component, Path, PathBuf};

use garth_spec::AgentConfig;

use crate::refusal::{Kind, Refusal};
use crate::users::{User, Users};

/// The user that a client named, or the sandbox's own.
pub fn user(asked: Option<&str>, config: &AgentConfig, users: &Users) -> Result<User, Refusal> {
    let name = asked.filter(|name| !name.is_empty()).unwrap_or(&config.user);
    users.find(name).map_err(|_| Refusal::new(Kind::Unauthenticated, format!("invalid username: '{name}'")))
}

/// An absolute path: `~` is the user's home, and relative paths begin there. `.` and `..` are taken out as text; links
/// are the kernel's to resolve, inside the sandbox.
pub fn absolute(path: &str, user: &User) -> Result<PathBuf, Refusal> {
    if path.contains('\0') {
        return Err(Refusal::invalid("the path holds a NUL byte"));
    }
    let home = Path::new(&user.home);
    let path = match path {
        "" | "~" => home.to_owned(),
        _ => home.join(path.strip_prefix("~/").unwrap_or(path)),
    };
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use garth_kernel::supervise::Identity;

    use super::*;

    #[test]
    fn paths_begin_at_home_and_stay_below_the_root() {
        let identity = Identity { uid: 0, gid: 0, groups: Vec::new() };
        let user = User { identity, name: "root".to_owned(), home: "/root".to_owned() };
        let check = |path: &str, expected: &str| {
            assert_eq!(absolute(path, &user).expect(path), Path::new(expected));
        };
        check("/a/b", "/a/b");
        check("a", "/root/a");
        check("~", "/root");
        check("~/a", "/root/a");
        check("", "/root");
        check(".", "/root");
        check("/a/./b/../c/", "/a/c");
        check("../../../etc", "/etc");
        assert!(absolute("/a\0b", &user).is_err());
    }
}
