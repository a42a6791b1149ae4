//! `multipart/form-data` (RFC 7578) read as it comes in: one part at a time, in constant memory.

use std::io::{self, BufRead, Read};

/// The longest block of headers of one part; file names are paths (PATH_MAX is 4 KiB).
const LONGEST_HEAD: u64 = 16 << 10;

/// The boundary that a content type names.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"').to_owned())
    })
}

/// The parts of a body.
#[derive(Debug)]
pub struct Parts<R> {
    reader: R,
    /// `\r\n--boundary`
    delimiter: Vec<u8>,
    begun: bool,
}

/// What a part says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The field's name.
    pub name: String,
    /// The file's name, which may be a whole path.
    pub file_name: Option<String>,
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the form is damaged: {what}"))
}

impl<R: BufRead> Parts<R> {
    /// Reads parts that are separated by `boundary`.
    pub fn new(reader: R, boundary: &str) -> Self {
        Self { reader, delimiter: format!("\r\n--{boundary}").into_bytes(), begun: false }
    }

    /// The next part's head; its content is read from [`Content`] before the next call.
    pub fn next(&mut self) -> io::Result<Option<Head>> {
        if !self.begun {
            self.begun = true;
            // The first boundary has no line before it.
            let mut line = Vec::new();
            (&mut self.reader).take(LONGEST_HEAD).read_until(b'\n', &mut line)?;
            if !line.starts_with(&self.delimiter[2..]) {
                return Err(damaged("no boundary"));
            }
            if line[self.delimiter.len() - 2..].starts_with(b"--") {
                return Ok(None);
            }
            return self.head().map(Some);
        }
        let mut end = [0u8; 2];
        self.reader.read_exact(&mut end)?;
        match &end {
            b"--" => Ok(None),
            b"\r\n" => self.head().map(Some),
            _ => Err(damaged("no line after the boundary")),
        }
    }

    /// The content of the part whose head was read last.
    pub fn content(&mut self) -> Content<'_, R> {
        Content { parts: self, done: false, false_alarm: (0, 0) }
    }

    fn head(&mut self) -> io::Result<Head> {
        let mut head = Head::default();
        let mut limited = (&mut self.reader).take(LONGEST_HEAD);
        loop {
            let mut line = Vec::new();
            limited.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                return Err(damaged("a head that is cut off or too long"));
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(head);
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-disposition")
            {
                head.name = parameter(value, "name").unwrap_or_default();
                head.file_name = parameter(value, "filename");
            }
        }
    }
}

/// A parameter of a header, quoted or not. Browsers write quotes in names as `%22` (WHATWG, multipart/form-data encoding).
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (text, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let end = end_of_quote(quoted)?;
                (quoted[..end].replace("\\\"", "\"").replace("%22", "\""), quoted[end + 1..].split_once(';'))
            }
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), after.split_once(';'))
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = next?.1;
    }
}

fn end_of_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len()).find(|at| bytes[*at] == b'"' && (*at == 0 || bytes[at - 1] != b'\\'))
}

/// Reads a part up to the next boundary.
#[derive(Debug)]
pub struct Content<'a, R> {
    parts: &'a mut Parts<R>,
    done: bool,
    /// Bytes of the delimiter that turned out to be content: from, to.
    false_alarm: (usize, usize),
}

impl<R: BufRead> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.done || buffer.is_empty() {
            return Ok(0);
        }
        if self.false_alarm.0 == self.false_alarm.1 {
            let there = self.parts.reader.fill_buf()?;
            if there.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // Everything up to a possible beginning of the delimiter is content.
            let plain = there.iter().position(|byte| *byte == b'\r').unwrap_or(there.len());
            if plain > 0 {
                let count = plain.min(buffer.len());
                buffer[..count].copy_from_slice(&there[..count]);
                self.parts.reader.consume(count);
                return Ok(count);
            }
            self.match_delimiter()?;
            if self.done {
                return Ok(0);
            }
        }
        let (from, to) = self.false_alarm;
        let count = (to - from).min(buffer.len());
        buffer[..count].copy_from_slice(&self.parts.delimiter[from..from + count]);
        self.false_alarm.0 += count;
        Ok(count)
    }
}

impl<R: BufRead> Content<'_, R> {
    /// The delimiter begins with its only `\r`, so what matched in vain is content and cannot begin another.
    fn match_delimiter(&mut self) -> io::Result<()> {
        let Parts { reader, delimiter, .. } = &mut *self.parts;
        for (matched, expected) in delimiter.iter().enumerate() {
            match reader.fill_buf()?.first() {
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(byte) if byte == expected => reader.consume(1),
                Some(_) => {
                    self.false_alarm = (0, matched);
                    return Ok(());
                }
            }
        }
        self.done = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn read(body: &str, capacity: usize) -> io::Result<Vec<(Head, String)>> {
        let mut parts = Parts::new(BufReader::with_capacity(capacity, body.as_bytes()), "XX");
        let mut found = Vec::new();
        while let Some(head) = parts.next()? {
            let mut text = String::new();
            parts.content().read_to_string(&mut text)?;
            found.push((head, text));
        }
        Ok(found)
    }

    fn head(name: &str, file_name: Option<&str>) -> Head {
        Head { name: name.to_owned(), file_name: file_name.map(str::to_owned) }
    }

    #[test]
    fn parts_are_exact_whatever_the_pieces() {
        let body = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"/a/b;c.txt\"\r\n\
                    Content-Type: text/plain\r\n\r\n\r\n--X\r\r\n--XY\n\r\n--XX\r\n\
                    content-disposition: form-data; name=other\r\n\r\n\r\n--XX--\r\n";
        for capacity in 1..70 {
            let parts = read(body, capacity).expect("parts");
            assert_eq!(
                parts,
                [
                    (head("file", Some("/a/b;c.txt")), "\r\n--X\r\r\n--XY\n".to_owned()),
                    (head("other", None), String::new()),
                ]
            );
        }
    }

    #[test]
    fn bodies_that_end_early_are_errors() {
        let whole = "--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\ntext\r\n--XX--";
        assert!(read(whole, 64).is_ok());
        for end in 0..whole.len() {
            assert!(read(&whole[..end], 64).is_err(), "{end}");
        }
        assert!(read("--YY\r\n\r\n", 64).is_err());
    }

    #[test]
    fn boundaries_are_found() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(boundary(text).as_deref(), expected);
        check("multipart/form-data; boundary=abc", Some("abc"));
        check("multipart/form-data; charset=utf-8; boundary=\"a b\"", Some("a b"));
        check("text/plain; boundary=abc", None);
        check("multipart/form-data", None);
    }
}
