use std::fs;
use std::path::Path;

use garth_spec::{ByteSize, ImageId, ProjectId};
use garth_storage::{Driver, DriverChoice, ImageMeta, Pool, PoolOptions};

pub const IMAGE: ImageId = ImageId::from_bits(0x1a9e);
pub const LIMIT: ByteSize = ByteSize::mib(64);

pub fn project(n: u64) -> ProjectId {
    ProjectId::from_bits(n)
}

/// A data directory and its pool, closed when the test ends, also by a failed assertion.
pub struct Fixture {
    pub pool: Pool,
    pub dir: tempfile::TempDir,
}

impl Fixture {
    /// A pool with an image that holds `etc/os`.
    pub fn with_image(options: &PoolOptions) -> Result<Self, garth_storage::Error> {
        let dir = tempfile::Builder::new().prefix("garth-storage-").tempdir().unwrap();
        let pool = Pool::open(dir.path(), options)?;
        make_image(&pool, IMAGE);
        Ok(Self { pool, dir })
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.pool.close();
    }
}

pub fn make_image(pool: &Pool, id: ImageId) {
    let draft = pool.new_image(id).unwrap();
    fs::create_dir(draft.path().join("etc")).unwrap();
    fs::write(draft.path().join("etc/os"), "garth").unwrap();
    draft.commit(ImageMeta::default()).unwrap();
}

/// Runs a check against each driver that this machine has.
pub fn with_each_driver(test: &str, check: impl Fn(&Fixture)) {
    for driver in [DriverChoice::Btrfs, DriverChoice::Overlay] {
        let dir = tempfile::Builder::new().prefix("garth-storage-").tempdir().unwrap();
        match Pool::open(dir.path(), &PoolOptions { driver, ..PoolOptions::default() }) {
            Ok(pool) => {
                let fixture = Fixture { pool, dir };
                assert_eq!(fixture.pool.driver() == Driver::Btrfs, driver == DriverChoice::Btrfs);
                make_image(&fixture.pool, IMAGE);
                check(&fixture);
            }
            Err(error) => println!("SKIP {test}: {driver:?}: {error}"),
        }
    }
}

/// Names left in a directory.
pub fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Tries until it is so; the kernel cleans deleted subvolumes up in its own time.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "waited too long for {what}");
        std::thread::yield_now();
    }
}
