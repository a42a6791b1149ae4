//! A project's files from level to level.

use crate::project;

/// Makes one of everything below /srv, and changes what came with the machine's own /usr.
const MAKE: &str = r#"
set -e
mkdir -p /srv/deep/er /srv/empty; cd /srv
head -c 3000000 /dev/urandom > random; : > nothing; printf 'x' > 'a name with spaces'
ln random hard; ln -s ../etc/passwd soft; ln -s nowhere broken; mkfifo pipe
chown 1000:1001 'a name with spaces'; chown -h 5:6 soft; chmod 4755 nothing; chmod 1777 empty; chmod 0 deep/er
truncate -s 100M sparse; printf end >> sparse
touch -d '1999-12-31 23:59:59.123456789' deep; touch -h -d '2001-01-01' broken
python3 -c 'import os; os.setxattr("/srv/random", "user.note", b"\x00\xff kept\n")'
echo more > /usr/local/added; rm /usr/bin/cal /usr/bin/ncal 2>/dev/null || rm /usr/bin/awk
"#;

/// Every entry below /srv and what was changed in /usr, with all that a move must keep. The rest of /usr is the
/// machine's: of now at the other levels, of the day of the copy in a guest.
const MANIFEST: &str = r#"
import hashlib, os, stat
def lines(top):
    for directory, names, files in os.walk(top):
        for name in sorted(names + files):
            path = os.path.join(directory, name); s = os.lstat(path)
            kind = stat.S_IFMT(s.st_mode); content = ""
            if kind == stat.S_IFREG:
                with open(path, "rb") as f: content = hashlib.sha256(f.read()).hexdigest()
            if kind == stat.S_IFLNK: content = os.readlink(path)
            xattrs = [(n, os.getxattr(path, n, follow_symlinks=False).hex()) for n in os.listxattr(path, follow_symlinks=False) if n.startswith("user.")]
            size = s.st_size if kind != stat.S_IFDIR else 0
            yield repr((path, oct(s.st_mode), s.st_uid, s.st_gid, size, s.st_mtime_ns, content, xattrs, s.st_nlink if kind == stat.S_IFREG else 0))
listed = sorted(lines("/srv")) + [line for line in lines("/usr/local") if line.startswith("('/usr/local/added'")]
gone = [p for p in ("/usr/bin/cal", "/usr/bin/ncal", "/usr/bin/awk") if not os.path.lexists(p)]
sparse = os.stat("/srv/sparse").st_blocks * 512 < 10 << 20
print(len(listed), hashlib.sha256("\n".join(listed).encode()).hexdigest(), gone, sparse)
"#;

#[test]
fn files_are_the_same_after_every_change_of_level() {
    let Some(yard) = project("files_are_the_same_after_every_change_of_level", "other") else { return };
    yard.ok(&["rm", "-f", "other"]);
    yard.ok(&["create", "p", "--network", "none"]);
    yard.sh("p", MAKE);
    let manifest = || yard.ok(&["exec", "p", "--", "python3", "-c", MANIFEST]);
    let first = manifest();
    assert!(first.ends_with("True"), "{first}");
    for level in ["microvm/qemu", "sysbox", "default"] {
        yard.ok(&["set", "p", "--runtime", level]);
        assert_eq!(manifest(), first, "{level}");
        let runtime = yard.json(&["inspect", "p"])["runtime"]["handler"].as_str().unwrap_or_default().to_owned();
        assert!(runtime.starts_with(level), "{runtime} instead of {level}");
    }
    let guests = yard.data_dir().join("pool/guests");
    assert_eq!(std::fs::read_dir(guests).expect("guests").count(), 0, "the old form stays");
}

#[test]
fn a_project_that_never_ran_begins_as_its_image_at_any_level() {
    let Some(yard) = project("a_project_that_never_ran_begins_as_its_image_at_any_level", "m") else { return };
    yard.ok(&["create", "d", "--network", "none"]);
    let listing = "find / -xdev -path /root -prune -o -printf '%p %M %U:%G\\n' | grep -v '^/etc/\\(hosts\\|hostname\\|machine-id\\|resolv.conf\\) ' | grep -v '^/\\(dev\\|proc\\|sys\\|run\\|usr\\|tmp\\)\\( \\|/\\)' | sort | sha256sum";
    assert_eq!(yard.sh("m", listing), yard.sh("d", listing));
}
