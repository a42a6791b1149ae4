//! How long an import takes: `cargo run --release -p garth-image --example import -- FILE DATA_DIR`.
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use garth_image::{Format, Limits, host, import};
use garth_spec::ImageId;
use garth_storage::{ImageMeta, Pool, PoolOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(dir)) = (arguments.next(), arguments.next()) else { return Err("FILE DATA_DIR".into()) };
    std::fs::create_dir_all(&dir)?;
    let pool = Pool::open(Path::new(&dir), &PoolOptions::default())?;
    let start = Instant::now();
    host::ensure(&pool)?;
    println!("make the host image: {:?}", start.elapsed());
    let start = Instant::now();
    host::ensure(&pool)?;
    println!("find the host image: {:?}", start.elapsed());
    let draft = pool.new_image(ImageId::from_bits(1))?;
    let start = Instant::now();
    let imported = import(&mut File::open(file)?, Format::Auto, &draft.path(), &Limits::default())?;
    println!("import {} entries, {} bytes: {:?}", imported.entries, imported.bytes, start.elapsed());
    let start = Instant::now();
    let meta =
        ImageMeta { config: imported.config, entries: imported.entries, bytes: imported.bytes, ..ImageMeta::default() };
    draft.commit(meta)?;
    println!("commit: {:?}", start.elapsed());
    Ok(())
}
