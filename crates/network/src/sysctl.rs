//! `/proc/sys/net` of the network namespace that the calling thread is in.

use std::{fs, io};

/// The value, without the newline; `None` where the kernel has no such file.
pub(crate) fn read(name: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(path(name)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the value reads `1`.
pub(crate) fn is_on(name: &str) -> bool {
    matches!(read(name), Ok(Some(value)) if value == "1")
}

pub(crate) fn write(name: &str, value: &str) -> io::Result<()> {
    fs::write(path(name), value)
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}
