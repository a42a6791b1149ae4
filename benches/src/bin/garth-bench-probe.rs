//! Runs inside a sandbox and times reads of one file there: open, read, close.
//!
//! Prints `total KIB`, what the first line of the file says, and then the nanoseconds of each read, one a line.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, count] = args.as_slice() else {
        return Err("usage: garth-bench-probe FILE COUNT".into());
    };
    let mut buffer = vec![0; 64 << 10];
    let mut times = Vec::with_capacity(count.parse()?);
    let mut length = 0;
    while times.len() < times.capacity() {
        let begin = Instant::now();
        let mut file = File::open(path)?;
        length = file.read(&mut buffer)?;
        drop(file);
        times.push(begin.elapsed());
    }
    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
    let mut out = format!("total {}\n", text.split_whitespace().nth(1).unwrap_or("0"));
    for time in times {
        out += &format!("{}\n", time.as_nanos());
    }
    Ok(std::io::stdout().write_all(out.as_bytes())?)
}
