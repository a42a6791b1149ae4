//! The guest's first root filesystem, as a cpio archive that the kernel unpacks: `/init` is the agent.

use std::io::Write as _;

use super::modules::Module;

/// One file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its path, without a slash in front.
    pub path: String,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A file that everyone may read.
    File(&'a [u8]),
    /// A file that everyone may run.
    Program(&'a [u8]),
    /// A character device of root's.
    Device {
        /// The driver.
        major: u32,
        /// The device.
        minor: u32,
    },
}

/// What a guest needs: the agent as `/init`, the modules as `/modules/NN-NAME.ko` in the order to load them in, places
/// to mount on, and the console, which the kernel opens before `/init` can mount a `/dev`.
pub fn entries<'a>(init: &'a [u8], modules: &'a [Module]) -> Vec<Entry<'a>> {
    let entry = |path: &str, kind| Entry { path: path.to_owned(), kind };
    let directories = ["dev", "proc", "sys", "newroot", "modules"].map(|path| entry(path, Kind::Directory));
    let modules = modules.iter().enumerate();
    let modules =
        modules.map(|(at, module)| entry(&format!("modules/{at:02}-{}.ko", module.name), Kind::File(&module.content)));
    let others = [entry("dev/console", Kind::Device { major: 5, minor: 1 }), entry("init", Kind::Program(init))];
    directories.into_iter().chain(others).chain(modules).collect()
}

/// The archive, in the format `newc` of cpio(5); the same entries give the same bytes. It is not compressed: unpacking
/// costs a guest without KVM as much processor time as it saves (gzip), or more (zstd).
pub fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        write(&mut bytes, at + 1, entry);
    }
    write(&mut bytes, 0, &Entry { path: "TRAILER!!!".to_owned(), kind: Kind::File(&[]) });
    bytes
}

fn write(bytes: &mut Vec<u8>, inode: usize, entry: &Entry<'_>) {
    let (mode, content, (major, minor)) = match entry.kind {
        Kind::Directory => (0o40_755, &[][..], (0, 0)),
        Kind::File(content) => (0o100_644, content, (0, 0)),
        Kind::Program(content) => (0o100_755, content, (0, 0)),
        Kind::Device { major, minor } => (0o20_600, &[][..], (major, minor)),
    };
    // c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, c_devmajor, c_devminor, c_rdevmajor, c_rdevminor,
    // c_namesize, c_check.
    let (size, name) = (content.len() as u32, entry.path.len() as u32 + 1);
    let fields = [inode as u32, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name, 0];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        // A vector takes all that is written to it.
        let _ = write!(bytes, "{field:08X}");
    }
    bytes.extend_from_slice(entry.path.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(content);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn example() -> Vec<u8> {
        let module = |name: &str| Module { name: name.to_owned(), content: name.as_bytes().to_vec() };
        archive(&entries(b"#!agent", &[module("virtio"), module("virtio_blk")]))
    }

    #[test]
    fn cpio_reads_it() {
        let cpio = Command::new("cpio").arg("-tv").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut cpio) = cpio else {
            println!("SKIP cpio_reads_it: cpio is not installed");
            return;
        };
        cpio.stdin.take().expect("stdin").write_all(&example()).expect("write");
        let out = cpio.wait_with_output().expect("cpio ends");
        assert!(out.status.success());
        let listing = String::from_utf8(out.stdout).expect("text");
        let column = |line: &str, at: usize| line.split_whitespace().nth(at).expect("column").to_owned();
        let listed: Vec<_> =
            listing.lines().map(|line| (column(line, 0), line.rsplit(' ').next().expect("name"))).collect();
        let listed: Vec<_> = listed.iter().map(|(mode, name)| (mode.as_str(), *name)).collect();
        let expected = [
            ("drwxr-xr-x", "dev"),
            ("drwxr-xr-x", "proc"),
            ("drwxr-xr-x", "sys"),
            ("drwxr-xr-x", "newroot"),
            ("drwxr-xr-x", "modules"),
            ("crw-------", "dev/console"),
            ("-rwxr-xr-x", "init"),
            ("-rw-r--r--", "modules/00-virtio.ko"),
            ("-rw-r--r--", "modules/01-virtio_blk.ko"),
        ];
        assert_eq!(listed, expected);
    }

    #[test]
    fn the_same_entries_are_the_same_bytes() {
        assert_eq!(example(), example());
        // Each header begins at a multiple of four, or the kernel finds no magic there.
        assert_eq!(example().len() % 4, 0);
    }
}
