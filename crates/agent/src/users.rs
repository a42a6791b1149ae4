//! The sandbox's users, read from its own /etc/passwd and /etc/group: the agent is a static binary, and name services of
//! the sandbox are none of its business.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use garth_kernel::supervise::Identity;

/// Larger files are cut: nobody has that many users, and memory is short.
const LONGEST: u64 = 1 << 20;

/// A user that processes can run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Ids.
    pub identity: Identity,
    /// The login name; the number as text when it has none.
    pub name: String,
    /// The home directory; `/` when it has none, or what the sandbox says.
    pub home: String,
}

/// A user or group that the sandbox does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {kind} {name:?} in the sandbox's {file}")]
pub struct UnknownUser {
    kind: &'static str,
    name: String,
    file: &'static str,
}

/// Where users are looked up.
#[derive(Debug, Clone)]
pub struct Users {
    etc: PathBuf,
    /// The home of those who are not in the files.
    home: String,
}

impl Users {
    /// Users of the `passwd` and `group` files in this directory.
    pub fn of(etc: impl AsRef<Path>) -> Self {
        Self { etc: etc.as_ref().to_owned(), home: "/".to_owned() }
    }

    /// Users who are not in the files have this home, if any.
    #[must_use]
    pub fn with_home(self, home: Option<String>) -> Self {
        Self { home: home.unwrap_or(self.home), ..self }
    }

    /// The user of `name`, `uid`, `name:group` or `uid:gid`. A number need not be in the files; its group is then 0.
    pub fn find(&self, text: &str) -> Result<User, UnknownUser> {
        let passwd = self.read("passwd");
        let groups = self.read("group");
        let (name, group) = text.split_once(':').map_or((text, None), |(name, group)| (name, Some(group)));
        let mut user = by_name(&passwd, name)
            .or_else(|| by_number(&passwd, name, &self.home))
            .ok_or_else(|| UnknownUser { kind: "user", name: name.to_owned(), file: "/etc/passwd" })?;
        match group.filter(|group| !group.is_empty()) {
            Some(group) => {
                user.identity.gid = group_number(&groups, group).ok_or_else(|| UnknownUser {
                    kind: "group",
                    name: group.to_owned(),
                    file: "/etc/group",
                })?;
            }
            None => user.identity.groups = groups_of(&groups, &user.name),
        }
        Ok(user)
    }

    /// The names of numbers, as they are now.
    pub fn names(&self) -> Names {
        Names { passwd: self.read("passwd"), group: self.read("group") }
    }

    /// Missing, unreadable and odd files are empty. O_NONBLOCK: a FIFO put in their place must not stop the agent.
    fn read(&self, file: &str) -> String {
        let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        let mut bytes = Vec::new();
        if let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(self.etc.join(file))
            && file.metadata().is_ok_and(|metadata| metadata.is_file())
        {
            let _ = file.take(LONGEST).read_to_end(&mut bytes);
        }
        String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// Names of users and groups, read once for many files.
#[derive(Debug)]
pub struct Names {
    passwd: String,
    group: String,
}

impl Names {
    /// The login name of a number, or the number as text.
    pub fn user(&self, uid: u32) -> String {
        name_of(&self.passwd, uid)
    }

    /// The group's name of a number, or the number as text.
    pub fn group(&self, gid: u32) -> String {
        name_of(&self.group, gid)
    }
}

/// One line of passwd(5): name, password, uid, gid, comment, home, shell.
fn user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/");
    let identity = Identity { uid, gid, groups: Vec::new() };
    Some(User { identity, name: name.to_owned(), home: home.to_owned() })
}

fn by_name(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().filter_map(user).find(|user| user.name == name)
}

fn by_number(passwd: &str, text: &str, home: &str) -> Option<User> {
    // 2^32 - 1 means "unchanged" to setresuid(2).
    let uid: u32 = text.parse().ok().filter(|uid| *uid != u32::MAX)?;
    let unnamed =
        User { identity: Identity { uid, gid: 0, groups: Vec::new() }, name: uid.to_string(), home: home.to_owned() };
    Some(passwd.lines().filter_map(user).find(|user| user.identity.uid == uid).unwrap_or(unnamed))
}

/// One line of group(5): name, password, gid, members.
fn group(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some((name, gid, fields.next().unwrap_or("")))
}

fn group_number(groups: &str, text: &str) -> Option<u32> {
    let named = groups.lines().filter_map(group).find(|(name, _, _)| *name == text).map(|(_, gid, _)| gid);
    named.or_else(|| text.parse().ok().filter(|gid| *gid != u32::MAX))
}

fn groups_of(groups: &str, name: &str) -> Vec<u32> {
    let has = |members: &str| members.split(',').any(|member| member == name);
    groups.lines().filter_map(group).filter(|(_, _, members)| has(members)).map(|(_, gid, _)| gid).collect()
}

/// Works for both files: the name is the first field and the number the third.
fn name_of(file: &str, number: u32) -> String {
    let named = file.lines().filter_map(group).find(|(_, other, _)| *other == number);
    named.map_or_else(|| number.to_string(), |(name, _, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> (tempfile::TempDir, Users) {
        let etc = tempfile::tempdir().expect("temporary directory");
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nuser:x:1000:1001:,,,:/home/user:/bin/bash\n";
        std::fs::write(etc.path().join("passwd"), passwd).expect("passwd");
        std::fs::write(etc.path().join("group"), "root:x:0:\nuser:x:1001:\nsudo:x:27:other,user\n").expect("group");
        let users = Users::of(etc.path());
        (etc, users)
    }

    #[track_caller]
    fn check(text: &str, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let user = users().1.find(text).expect("known");
        let identity = Identity { uid, gid, groups: groups.to_vec() };
        assert_eq!((user.identity, user.home.as_str()), (identity, home));
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check("root", 0, 0, &[], "/root");
        check("user", 1000, 1001, &[27], "/home/user");
        check("1000", 1000, 1001, &[27], "/home/user");
        check("user:sudo", 1000, 27, &[], "/home/user");
        check("user:5", 1000, 5, &[], "/home/user");
        check("4242", 4242, 0, &[], "/");
        check("4242:7", 4242, 7, &[], "/");
    }

    #[test]
    fn unknown_users_and_groups_are_errors() {
        let (_etc, users) = users();
        for text in ["nobody", "user:nogroup", "", "-1", "4294967295", "4294967296"] {
            assert!(users.find(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_fifo_in_place_of_passwd_does_not_block() {
        let etc = tempfile::tempdir().expect("temporary directory");
        let path = etc.path().join("passwd");
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("fifo");
        assert!(Users::of(etc.path()).find("root").is_err());
    }
}
