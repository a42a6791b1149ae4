//! What of the machine's `/usr` the sandbox does not see.
//!
//! Packages own `/usr`, and every user of the machine can read what they put there. The administrator
//! owns `/usr/local`: its `etc/` is configuration like `/etc`, with tokens and passwords in it, and what
//! others may not read there, a sandbox's root could.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::plan::{Mask, Plan};

/// Entries looked at below `/usr/local`; a bound on the time the first start takes. What lies beyond is hidden whole.
const MOST: usize = 200_000;

pub(super) fn add(plan: &mut Plan, usr: &Path) {
    let local = usr.join("local");
    let Ok(meta) = fs::symlink_metadata(&local) else { return };
    if !meta.is_dir() {
        return;
    }
    let mut masks = Vec::new();
    let mut left = MOST;
    let mut pending = vec![PathBuf::from("local")];
    while let Some(dir) = pending.pop() {
        let Ok(entries) = fs::read_dir(usr.join(&dir)) else { continue };
        for entry in entries.flatten() {
            let path = dir.join(entry.file_name());
            let Ok(meta) = entry.metadata() else { continue };
            let mode = meta.mode();
            left = left.saturating_sub(1);
            if path == Path::new("local/etc") && meta.is_dir() {
                masks.push((path, Mask::Emptied { mode: mode & 0o7777 }));
            } else if meta.is_dir() && left > 0 && mode & 0o5 == 0o5 {
                pending.push(path);
            } else if meta.is_dir() || (!meta.is_symlink() && mode & 0o4 == 0) {
                masks.push((path, Mask::Absent));
            }
        }
    }
    for (path, mask) in masks {
        add_parents(plan, usr, &path);
        plan.usr.insert(path, mask);
    }
}

/// A mask needs its parents in the layer, looking as they do on the machine.
fn add_parents(plan: &mut Plan, usr: &Path, path: &Path) {
    for parent in path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
        let mode = fs::symlink_metadata(usr.join(parent)).map_or(0o755, |meta| meta.mode() & 0o7777);
        plan.usr.entry(parent.to_owned()).or_insert(Mask::Merged { mode });
    }
}
