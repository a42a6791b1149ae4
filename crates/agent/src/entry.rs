//! Files as envd describes them.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use buffa_types::google::protobuf::Timestamp;
use garth_protocol::filesystem::{EntryInfo, FileType};

use crate::files::METADATA;
use crate::refusal::Refusal;
use crate::users::Names;

/// The longest value of one piece of metadata that is shown.
const LONGEST_VALUE: usize = 4096;

/// Describes what is at `path`. A link shows its target's type and permission bits, and its own in `permissions`.
pub fn describe(path: &Path, names: &Names) -> Result<EntryInfo, Refusal> {
    let metadata = fs::symlink_metadata(path).map_err(|error| Refusal::of(&error, path.display()))?;
    Ok(of(path, &metadata, names))
}

/// The same with what is known already.
pub fn of(path: &Path, metadata: &Metadata, names: &Names) -> EntryInfo {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let is_symlink = metadata.is_symlink();
    let target = if is_symlink { fs::metadata(path) } else { Ok(metadata.clone()) };
    EntryInfo {
        name: path.file_name().map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned()),
        r#type: kind(&target).into(),
        path: text(path),
        size: i64::try_from(metadata.len()).unwrap_or(i64::MAX),
        mode: target.as_ref().map_or(0, |target| target.mode() & 0o777),
        permissions: permissions(metadata),
        owner: names.user(metadata.uid()),
        group: names.group(metadata.gid()),
        modified_time: Timestamp {
            seconds: metadata.mtime(),
            nanos: i32::try_from(metadata.mtime_nsec()).unwrap_or(0),
            ..Default::default()
        }
        .into(),
        // What it leads to in the end, or what it says when that leads nowhere.
        symlink_target: is_symlink.then(|| {
            fs::canonicalize(path).or_else(|_| fs::read_link(path)).map(|target| text(&target)).unwrap_or_default()
        }),
        metadata: uploaded_with(path).into_iter().collect(),
        is_symlink,
        ..Default::default()
    }
}

/// A link that leads nowhere is a link; devices, FIFOs and sockets have no word in envd's language.
fn kind(target: &io::Result<Metadata>) -> FileType {
    match target {
        Err(_) => FileType::FILE_TYPE_SYMLINK,
        Ok(target) if target.is_dir() => FileType::FILE_TYPE_DIRECTORY,
        Ok(target) if target.is_file() => FileType::FILE_TYPE_FILE,
        Ok(_) => FileType::FILE_TYPE_UNSPECIFIED,
    }
}

/// As Go's `fs.FileMode` prints them: `-rw-r--r--`, `drwxr-xr-x`, `Lrwxrwxrwx`, `urwxr-xr-x`.
fn permissions(metadata: &Metadata) -> String {
    let (kind, mode) = (metadata.file_type(), metadata.mode());
    let marks = [
        (kind.is_dir(), 'd'),
        (kind.is_symlink(), 'L'),
        (kind.is_block_device() || kind.is_char_device(), 'D'),
        (kind.is_fifo(), 'p'),
        (kind.is_socket(), 'S'),
        (mode & 0o4000 != 0, 'u'),
        (mode & 0o2000 != 0, 'g'),
        (kind.is_char_device(), 'c'),
        (mode & 0o1000 != 0, 't'),
    ];
    let mut text: String = marks.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect();
    if text.is_empty() {
        text.push('-');
    }
    text.extend(
        "rwxrwxrwx".chars().enumerate().map(|(at, letter)| if mode >> (8 - at) & 1 == 1 { letter } else { '-' }),
    );
    text
}

fn uploaded_with(path: &Path) -> Vec<(String, String)> {
    let mut names = [0u8; LONGEST_VALUE];
    // Most files have none, and then this is the only call.
    let count = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..count].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
    names
        .filter_map(|name| {
            let key = name.strip_prefix(METADATA)?;
            let mut value = [0u8; LONGEST_VALUE];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
            Some((key.to_owned(), String::from_utf8_lossy(&value[..length]).into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn files_links_and_directories_are_described_as_by_envd() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "12345").expect("file");
        fs::set_permissions(path("file"), fs::Permissions::from_mode(0o4640)).expect("mode");
        symlink("file", path("link")).expect("link");
        symlink("nowhere", path("broken")).expect("link");
        let names = crate::users::Users::of("/etc").names();
        let file = describe(&path("file"), &names).expect("file");
        assert_eq!((file.size, file.mode, file.permissions.as_str()), (5, 0o640, "urw-r-----"));
        assert_eq!(file.r#type, FileType::FILE_TYPE_FILE);
        let link = describe(&path("link"), &names).expect("link");
        assert_eq!((link.is_symlink, link.permissions.as_str()), (true, "Lrwxrwxrwx"));
        assert_eq!(link.r#type, FileType::FILE_TYPE_FILE);
        assert!(link.symlink_target.expect("target").ends_with("/file"));
        let broken = describe(&path("broken"), &names).expect("broken");
        assert_eq!(broken.r#type, FileType::FILE_TYPE_SYMLINK);
        assert_eq!(broken.symlink_target.as_deref(), Some("nowhere"));
        assert!(describe(&path("missing"), &names).is_err());
    }
}
