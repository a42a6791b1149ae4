//! The data of a file, without its holes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Calls `each` with every run of data among the first `size` bytes.
pub fn extents(file: &File, size: u64, mut each: impl FnMut(Range<u64>) -> io::Result<()>) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Only a hole from here on.
            Err(Errno::NXIO) => return Ok(()),
            // A filesystem that knows of no holes.
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        if start >= size {
            return Ok(());
        }
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::INVAL) => size,
            Err(error) => return Err(error.into()),
        };
        each(start..end)?;
        at = end;
    }
    Ok(())
}

/// Calls `each` with pieces of the file, no longer than `piece`, and where each is. Ends with `UnexpectedEof` when the
/// file is shorter.
pub fn read(
    file: &File,
    run: Range<u64>,
    piece: &mut [u8],
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = run.start;
    while at < run.end {
        let wanted = piece.len().min(usize::try_from(run.end - at).unwrap_or(piece.len()));
        file.read_exact_at(&mut piece[..wanted], at)?;
        each(at, &piece[..wanted])?;
        at += wanted as u64;
    }
    Ok(())
}
