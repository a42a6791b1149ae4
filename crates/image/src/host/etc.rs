use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::plan::{Entry, Plan};

/// What is copied, with the reasons.
const LIST: &str = include_str!("etc.list");
/// A configuration file above this is none.
const LARGEST: u64 = 8 << 20;
/// Entries of one listed directory; a bound, not a limit that a real machine meets.
const MOST: usize = 20_000;

/// Files that are made, not copied.
const MADE: [(&str, &str); 6] = [
    ("etc/fstab", ""),
    ("etc/hostname", "sandbox\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    // Empty means "made at first boot" (machine-id(5)); the machine's own would tell sandboxes apart from others' hosts.
    ("etc/machine-id", ""),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nshadow: files\ngshadow: files\nhosts: files dns\nnetworks: files\n\
         protocols: files\nservices: files\nethers: files\nrpc: files\n",
    ),
    // The runtime mounts the sandbox's own over it.
    ("etc/resolv.conf", ""),
];

pub(super) fn add(plan: &mut Plan, machine: &Path) {
    for pattern in LIST.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let there = |path: &PathBuf| fs::symlink_metadata(machine.join(path)).is_ok();
        for path in matches(machine, pattern).into_iter().filter(there) {
            add_parents(plan, &path);
            copy(plan, machine, &path);
        }
    }
    for (path, content) in MADE {
        plan.file(path, 0o644, content);
    }
    plan.link("etc/mtab", "/proc/self/mounts");
}

/// The paths below the machine's root that a line of the list names.
fn matches(machine: &Path, pattern: &str) -> Vec<PathBuf> {
    let path = Path::new("etc").join(pattern);
    let Some(prefix) = pattern.strip_suffix('*') else { return vec![path] };
    let full = Path::new("etc").join(prefix);
    let (Some(dir), Some(start)) = (full.parent(), full.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(machine.join(dir)) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_str().is_some_and(|name| name.starts_with(start))).map(|name| dir.join(name)).collect()
}

fn add_parents(plan: &mut Plan, path: &Path) {
    for parent in path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
        plan.root.entry(parent.to_owned()).or_insert(Entry::Dir { mode: 0o755 });
    }
}

/// Copies a file, a link, or a directory with all below. What cannot be read is left out.
fn copy(plan: &mut Plan, machine: &Path, path: &Path) {
    let mut pending = vec![path.to_owned()];
    let mut left = MOST;
    while let Some(path) = pending.pop() {
        let at = machine.join(&path);
        let Ok(meta) = fs::symlink_metadata(&at) else { continue };
        left = left.saturating_sub(1);
        if left == 0 {
            return;
        }
        if meta.is_symlink() {
            if let Ok(target) = fs::read_link(&at) {
                plan.link(path, target);
            }
        } else if meta.is_dir() && meta.mode() & 0o5 == 0o5 {
            plan.dir(&path, 0o755);
            let entries = fs::read_dir(&at).into_iter().flatten().flatten();
            pending.extend(entries.map(|entry| path.join(entry.file_name())));
        } else if meta.is_file() {
            copy_file(plan, &at, path, &meta);
        }
    }
}

/// Only what every user of the machine may read, and nothing with a secret in it.
fn copy_file(plan: &mut Plan, at: &Path, path: PathBuf, meta: &fs::Metadata) {
    if meta.mode() & 0o4 == 0 || meta.len() > LARGEST || is_secret_by_name(&path) {
        return;
    }
    let Ok(content) = fs::read(at) else { return };
    if !holds_secret(&content) {
        let mode = if meta.mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        plan.file(path, mode, content);
    }
}

/// Settings that exist to carry credentials.
fn is_secret_by_name(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let secret = name.starts_with("settings") && name.ends_with(".xml") && path.starts_with("etc/maven");
    secret || name.ends_with(".key") || name.ends_with('-') || name.ends_with('~') || name == "gradle.properties"
}

/// A private key, or an address with a password in it.
fn holds_secret(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    text.contains("PRIVATE KEY-----") || has_password_in_address(&text)
}

fn has_password_in_address(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let end = rest.find(|c: char| c.is_whitespace() || "/\"'<>".contains(c)).unwrap_or(rest.len());
        rest[..end].split_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}
