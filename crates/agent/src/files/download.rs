//! `GET /files?path=…`: a file, or a range of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use rustix::fs::OFlags;

use crate::refusal::Refusal;
use crate::transfer::{Outgoing, PIECE, outgoing};

/// What is sent of a file of some length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// The first byte and the number of bytes.
    Range(u64, u64),
    Unsatisfiable,
}

/// Opens the file and answers with its content.
pub async fn download(path: PathBuf, headers: &HeaderMap) -> Result<Response<Option<Outgoing>>, Refusal> {
    let shown = path.clone();
    let opened = tokio::task::spawn_blocking(move || open(&path)).await;
    let (file, length) = opened.map_err(|error| Refusal::of(&io::Error::other(error), shown.display()))??;
    let part = part(headers.get(header::RANGE), length);
    let (start, count) = match part {
        Part::Whole => (0, length),
        Part::Range(start, count) => (start, count),
        Part::Unsatisfiable => (0, 0),
    };
    let body = (part != Part::Unsatisfiable).then(|| outgoing(move |out| send(file, start, count, out)));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_DISPOSITION, disposition(&shown));
    headers.insert(header::CONTENT_LENGTH, count.into());
    let range = match part {
        Part::Whole => return Ok(response),
        Part::Range(..) => format!("bytes {start}-{}/{length}", start + count - 1),
        Part::Unsatisfiable => format!("bytes */{length}"),
    };
    headers.extend(HeaderValue::from_str(&range).ok().map(|value| (header::CONTENT_RANGE, value)));
    *response.status_mut() =
        if part == Part::Unsatisfiable { StatusCode::RANGE_NOT_SATISFIABLE } else { StatusCode::PARTIAL_CONTENT };
    Ok(response)
}

/// O_NONBLOCK: opening a FIFO must not wait for its writer.
fn open(path: &Path) -> Result<(File, u64), Refusal> {
    let refused = |error: &io::Error| Refusal::of(error, path.display());
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file =
        File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(|e| refused(&e))?;
    let metadata = file.metadata().map_err(|error| refused(&error))?;
    if metadata.is_dir() {
        return Err(Refusal::invalid(format!("path '{}' is a directory", path.display())));
    }
    if !metadata.is_file() {
        return Err(Refusal::invalid(format!("path '{}' is not a regular file", path.display())));
    }
    Ok((file, metadata.len()))
}

fn send(mut file: File, start: u64, count: u64, out: &mut impl Write) -> io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    let mut piece = vec![0u8; PIECE];
    let mut rest = file.take(count);
    loop {
        match rest.read(&mut piece)? {
            0 if rest.limit() == 0 => return Ok(()),
            // The length was promised; breaking the connection is the only way left to say that it is not so.
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => out.write_all(&piece[..more])?,
        }
    }
}

/// One range of bytes (RFC 9110, 14.1.2). Several at once, and what is no range, are answered with the whole, as allowed.
fn part(range: Option<&HeaderValue>, length: u64) -> Part {
    let text = range.and_then(|range| range.to_str().ok()).and_then(|text| text.strip_prefix("bytes="));
    let Some((first, last)) = text.and_then(|text| text.split_once('-')).filter(|(_, last)| !last.contains(',')) else {
        return Part::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if first >= length => Part::Unsatisfiable,
        (Ok(first), Ok(last)) if last >= first => Part::Range(first, last.min(length - 1) - first + 1),
        (Ok(first), Err(_)) if last.is_empty() => Part::Range(first, length - first),
        (Err(_), Ok(suffix)) if first.is_empty() && suffix > 0 && length > 0 => {
            let count = suffix.min(length);
            Part::Range(length - count, count)
        }
        (Err(_), Ok(_)) if first.is_empty() => Part::Unsatisfiable,
        _ => Part::Whole,
    }
}

fn disposition(path: &Path) -> HeaderValue {
    let name = path.file_name().map(|name| name.to_string_lossy().replace(['"', '\\'], "_")).unwrap_or_default();
    HeaderValue::from_str(&format!("inline; filename=\"{name}\"")).unwrap_or(HeaderValue::from_static("inline"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_understood() {
        let check = |text: &'static str, length, expected| {
            assert_eq!(part(Some(&HeaderValue::from_static(text)), length), expected, "{text} of {length}");
        };
        check("bytes=0-4", 10, Part::Range(0, 5));
        check("bytes=5-", 10, Part::Range(5, 5));
        check("bytes=-3", 10, Part::Range(7, 3));
        check("bytes=-30", 10, Part::Range(0, 10));
        check("bytes=2-99", 10, Part::Range(2, 8));
        check("bytes=10-", 10, Part::Unsatisfiable);
        check("bytes=0-", 0, Part::Unsatisfiable);
        check("bytes=-0", 10, Part::Unsatisfiable);
        check("bytes=4-2", 10, Part::Whole);
        check("bytes=0-1,3-4", 10, Part::Whole);
        check("lines=0-1", 10, Part::Whole);
        assert_eq!(part(None, 10), Part::Whole);
    }
}
