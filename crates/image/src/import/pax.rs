//! Extended headers of the pax format (POSIX.1-2017, `pax`): records of `LENGTH NAME=VALUE\n`.

use crate::error::{Error, ErrorKind};

/// The records of one extended header, in order.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// Values may hold any byte, newlines too: only the length tells where a record ends.
    pub(super) fn parse(mut text: &[u8]) -> Result<Self, Error> {
        let mut records = Vec::new();
        while !text.is_empty() && text[0] != 0 {
            let (record, rest) = split_record(text).ok_or_else(bad)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            text = rest;
        }
        Ok(Self(records))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// All values of a name, in order.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.0.iter().filter(move |(key, _)| key == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// The last value of a name as a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        self.get(name).map(|value| number(value).ok_or_else(bad)).transpose()
    }

    /// A time in seconds, with nanoseconds if there is a fraction; may be before 1970.
    pub(super) fn time(&self, name: &str) -> Result<Option<(i64, u32)>, Error> {
        self.get(name).map(|value| time(value).ok_or_else(bad)).transpose()
    }

    /// The names and values of records whose name begins so, without that beginning.
    pub(super) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + 'a {
        self.0.iter().filter_map(move |(key, value)| Some((key.strip_prefix(prefix.as_bytes())?, value.as_slice())))
    }
}

fn bad() -> Error {
    Error::new(ErrorKind::BadDocument("extended header".to_owned()))
}

/// The record without its length and newline, and what follows.
fn split_record(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().take(12).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&text[..space])?).ok()?;
    let record = text.get(space + 1..length)?;
    Some((record.strip_suffix(b"\n")?, &text[length..]))
}

/// Digits and nothing else.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    if !whole.starts_with('-') || nanos == 0 {
        return Some((seconds, nanos));
    }
    Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, value: &[u8]) -> Vec<u8> {
        let body = [format!(" {name}=").as_bytes(), value, b"\n"].concat();
        let digits = (1..4).find(|digits| (body.len() + digits).to_string().len() == *digits).unwrap();
        [(body.len() + digits).to_string().as_bytes(), &body].concat()
    }

    #[test]
    fn values_with_newlines_and_zeros_survive() {
        let text = [record("SCHILY.xattr.security.capability", b"\x01\n\x00\n="), record("path", b"a\nb")].concat();
        let records = Records::parse(&text).unwrap();
        assert_eq!(records.get("SCHILY.xattr.security.capability"), Some(&b"\x01\n\x00\n="[..]));
        assert_eq!(records.get("path"), Some(&b"a\nb"[..]));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for text in ["9 a=b\n", "0 a=b\n", "5 a=b", "99999999999999999999 a=b\n", "x a=b\n", "6 ab \n", "2 a=b\n"] {
            assert!(Records::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_may_be_early() {
        let at = |text: &str| Records::parse(&record("mtime", text.as_bytes())).unwrap().time("mtime").ok().flatten();
        assert_eq!(at("12.5"), Some((12, 500_000_000)));
        assert_eq!(at("12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(at("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(at("12"), Some((12, 0)));
        assert_eq!(at("x"), None);
    }
}
