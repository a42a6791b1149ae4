//! How long a pool's operations take here: `cargo run -p garth-storage --example timing -- DIRECTORY`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use garth_spec::{ByteSize, ImageId, ProjectId};
use garth_storage::{Error, ImageMeta, Pool, PoolOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("name an empty directory")?);
    std::fs::create_dir_all(&dir)?;
    let pool = timed("open a new pool", || Pool::open(&dir, &PoolOptions::default()))?;
    let image = ImageId::from_bits(1);
    timed("make an empty image", || pool.new_image(image)?.commit(ImageMeta::default()))?;
    let (mut made, mut removed) = (Vec::new(), Vec::new());
    for n in 0..200 {
        let id = ProjectId::from_bits(n);
        let start = Instant::now();
        pool.create_disk(id, image, ByteSize::mib(64))?;
        made.push(start.elapsed());
        let start = Instant::now();
        pool.remove_disk(id)?;
        removed.push(start.elapsed());
    }
    let mut scratch = Vec::new();
    for n in 0..200 {
        let id = ProjectId::from_bits(n);
        let start = Instant::now();
        pool.create_scratch_disk(id, image, ByteSize::mib(64))?;
        scratch.push(start.elapsed());
        pool.remove_disk(id)?;
        // As one who starts, runs and stops a sandbox with it.
        std::thread::sleep(Duration::from_millis(3));
    }
    show("create a disk", made);
    show("create a scratch disk", scratch);
    show("remove a disk", removed);
    timed("maintain", || pool.maintain())?;
    timed("close", || pool.close())?;
    timed("open it again", || Pool::open(&dir, &PoolOptions::default()))?;
    timed("close", || pool.close())?;
    Ok(())
}

fn timed<T>(what: &str, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let start = Instant::now();
    let answer = run();
    println!("{what}: {:?}", start.elapsed());
    answer
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    println!("{what}: p50 {:?}, p95 {:?}", times[times.len() / 2], times[times.len() * 95 / 100]);
}
