//! What kernels and modules are compressed with.

use std::io::{self, Read};

/// The largest window of a zstd frame that its decoder takes, as the frame header has it: 96 MiB.
const ZSTD_WINDOW: u8 = 16 << 3 | 4;

/// How some bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Xz,
    Zstd,
    /// The old frame format, which is the kernel's.
    Lz4,
    /// One that we cannot undo.
    Other(&'static str),
}

impl Compression {
    /// Told by the first bytes; the magic numbers are those of the kernel's `scripts/extract-vmlinux`.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let known: [(&[u8], Self); 7] = [
            (b"\x1f\x8b", Self::Gzip),
            (b"\xfd7zXZ\0", Self::Xz),
            (b"\x28\xb5\x2f\xfd", Self::Zstd),
            (b"\x02\x21\x4c\x18", Self::Lz4),
            (b"BZh", Self::Other("bzip2")),
            (b"\x5d\0\0", Self::Other("lzma")),
            (b"\x89LZO", Self::Other("lzo")),
        ];
        known.into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, compression)| compression)
    }

    /// The bytes decompressed; what comes after the compressed stream is not looked at, but for lz4, which has no end.
    pub(super) fn read<'a>(self, bytes: &'a [u8]) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new(bytes, false)),
            Self::Zstd => zstd(bytes)?,
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(bytes)),
            Self::Other(name) => return Err(io::Error::new(io::ErrorKind::Unsupported, name)),
        })
    }
}

/// Kernels are compressed as a stream of unknown length, so their frames ask for a window of 128 MiB, more than this
/// decoder is made for, and a damaged frame may ask for any. No reference reaches further back than the content is long,
/// so a smaller window does for all that is shorter; the decoder notices when it does not.
fn zstd(bytes: &[u8]) -> io::Result<Box<dyn Read + '_>> {
    let mut head: Vec<u8> = bytes.iter().take(6).copied().collect();
    if let [_, _, _, _, descriptor, window] = head.as_mut_slice()
        // Bit 5: a single segment, without a window (RFC 8878, 3.1.1.1).
        && *descriptor & 0x20 == 0
    {
        *window = (*window).min(ZSTD_WINDOW);
    }
    let rest = &bytes[head.len()..];
    let frame = io::Cursor::new(head).chain(rest);
    let decoder = ruzstd::decoding::StreamingDecoder::new(frame);
    Ok(Box::new(decoder.map_err(io::Error::other)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_compress_is_read_again() {
        let content: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let tools: [(&str, &[&str], Compression); 4] = [
            ("gzip", &["-9"], Compression::Gzip),
            ("xz", &["--check=crc32", "--x86", "--lzma2=dict=2MiB"], Compression::Xz),
            ("zstd", &["-22", "--ultra"], Compression::Zstd),
            ("lz4", &["-l", "-9", "-c"], Compression::Lz4),
        ];
        for (tool, arguments, expected) in tools {
            let Some(compressed) = filter(tool, arguments, &content) else {
                println!("SKIP what_tools_compress_is_read_again: {tool} is not installed");
                continue;
            };
            assert_eq!(Compression::of(&compressed), Some(expected), "{tool}");
            let mut read = Vec::new();
            let decoded = expected.read(&compressed).and_then(|mut stream| stream.read_to_end(&mut read));
            decoded.unwrap_or_else(|error| panic!("{tool}: {error}"));
            assert!(read == content, "{tool}");
        }
    }

    #[test]
    fn a_zstd_frame_that_asks_for_a_huge_window_gets_a_small_one() {
        let content = vec![7; 300_000];
        let Some(mut compressed) = filter("zstd", &["--no-content-size"], &content) else {
            println!("SKIP a_zstd_frame_that_asks_for_a_huge_window_gets_a_small_one: zstd is not installed");
            return;
        };
        assert_eq!(compressed[4] & 0x20, 0, "a frame with a window");
        // Nearly 4 TiB, which no decoder may believe.
        compressed[5] = 0xff;
        let mut read = Vec::new();
        Compression::Zstd.read(&compressed).expect("a frame").read_to_end(&mut read).expect("content");
        assert!(read == content);
    }

    #[test]
    fn half_of_it_is_an_error() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        io::Write::write_all(&mut encoder, &[7; 100_000]).expect("write");
        let whole = encoder.finish().expect("gzip");
        let mut stream = Compression::Gzip.read(&whole[..whole.len() / 2]).expect("stream");
        assert!(stream.read_to_end(&mut Vec::new()).is_err());
    }

    /// What a program makes of its standard input; none when there is no such program.
    fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
        use std::process::{Command, Stdio};
        let mut command = Command::new(program);
        let child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = child.spawn().ok()?;
        let mut stdin = child.stdin.take().expect("stdin");
        std::thread::scope(|scope| {
            scope.spawn(move || io::Write::write_all(&mut stdin, input).expect("write"));
            Some(child.wait_with_output().expect("output").stdout)
        })
    }
}
