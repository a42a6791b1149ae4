use garth_protocol::agent::EndReason;

use super::*;
use crate::process::ring::Ring;

fn output_of(text: &'static [u8]) -> Arc<Output> {
    let output = Arc::new(Output::default());
    output.push(Stream::STREAM_STDOUT, Bytes::from_static(text));
    output
}

fn reader(output: &Arc<Output>, position: Option<u64>) -> Reader {
    Reader::new(Arc::clone(output), "p1".to_owned(), None, position)
}

#[track_caller]
fn data(next: Next) -> (u64, Bytes) {
    match next {
        Next::Chunk(chunk) => (chunk.offset, chunk.data),
        other => panic!("{other:?} is no output"),
    }
}

#[tokio::test]
async fn readers_begin_where_they_ask() {
    let output = output_of(b"hello");
    assert_eq!(data(reader(&output, Some(0)).now().await), (0, Bytes::from_static(b"hello")));
    assert_eq!(data(reader(&output, Some(3)).now().await), (3, Bytes::from_static(b"lo")));
    assert!(matches!(reader(&output, Some(99)).now().await, Next::Nothing));
    assert!(matches!(reader(&output, None).now().await, Next::Nothing));
}

#[tokio::test]
async fn the_end_comes_after_all_output() {
    let output = output_of(b"bye");
    output.end(Ended { reason: EndReason::END_REASON_EXITED.into(), ..Default::default() });
    let mut reader = reader(&output, Some(0));
    assert_eq!(data(reader.next().await).0, 0);
    let Next::Ended(ended) = reader.next().await else { panic!("no end") };
    assert_eq!(ended.offset, 3);
}

#[tokio::test]
async fn a_waiting_reader_is_woken() {
    let output = Arc::new(Output::default());
    let mut reader = reader(&output, Some(0));
    let waiting = tokio::spawn(async move { data(reader.next().await) });
    tokio::task::yield_now().await;
    output.push(Stream::STREAM_STDERR, Bytes::from_static(b"x"));
    assert_eq!(waiting.await.expect("reader"), (0, Bytes::from_static(b"x")));
}

#[tokio::test]
async fn what_memory_let_go_of_is_read_from_disk() {
    let temporary = tempfile::tempdir().expect("temporary directory");
    let keep = Keep::below(std::fs::File::open(temporary.path()).expect("open").into());
    let directory = keep.directory().expect("directory");
    let output = output_of(b"old ");
    let mut ring = Ring::create(directory, &described(), 1 << 20).expect("ring");
    ring.append(&described(), &output.unstored(), || Bound::Drop).expect("append");
    output.stored(4, ring.segments());
    output.push(Stream::STREAM_STDOUT, Bytes::from_static(b"new"));
    assert_eq!(output.in_memory(), 3);
    let mut reader = Reader::new(Arc::clone(&output), "p1".to_owned(), Some(keep), Some(1));
    assert_eq!(data(reader.now().await), (1, Bytes::from_static(b"ld ")));
    assert_eq!(data(reader.now().await), (4, Bytes::from_static(b"new")));
    assert!(matches!(reader.now().await, Next::Nothing));
}

/// The output of a process with a ring of four files of 4 KiB, and what brings it there.
struct Small {
    output: Arc<Output>,
    ring: Ring,
    keep: Keep,
    _temporary: tempfile::TempDir,
}

impl Small {
    fn new() -> Self {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let keep = Keep::below(std::fs::File::open(temporary.path()).expect("open").into());
        let ring = Ring::create(keep.directory().expect("directory"), &described(), 16 << 10).expect("ring");
        Self { output: Arc::default(), ring, keep, _temporary: temporary }
    }

    /// 3 KiB, so that no two fit in one file.
    fn push(&self, count: usize) {
        (0..count).for_each(|_| self.output.push(Stream::STREAM_STDOUT, vec![b'x'; 3 << 10].into()));
    }

    /// Brings to the ring what may go there; says how much is there.
    fn store(&mut self) -> u64 {
        self.ring.append(&described(), &self.output.unstored(), || self.output.bound()).expect("append");
        self.output.stored(self.ring.next(), self.ring.segments());
        self.ring.next()
    }

    fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.output), "p1".to_owned(), Some(self.keep.clone()), Some(0))
    }

    fn end(&self) {
        self.output.end(Ended { reason: EndReason::END_REASON_EXITED.into(), ..Default::default() });
    }
}

fn described() -> garth_protocol::agent::Process {
    garth_protocol::agent::Process { id: "p1".to_owned(), ..Default::default() }
}

#[tokio::test]
async fn the_ring_never_overtakes_a_reader_that_holds() {
    let mut small = Small::new();
    let mut reader = small.reader().holding();
    small.push(6);
    assert_eq!(small.store(), 4 * (3 << 10), "the fifth file would push out the first");
    assert_eq!(data(reader.now().await).0, 0);
    assert_eq!(small.store(), 5 * (3 << 10), "the second file is not read yet");
    drop(reader);
    assert_eq!(small.store(), 6 * (3 << 10));
    assert_eq!(small.output.range().0, 2 * (3 << 10), "nobody waits for the first files");
}

#[tokio::test]
async fn nothing_is_pushed_out_between_what_is_read_after_the_end() {
    let mut small = Small::new();
    small.push(4);
    small.store();
    small.push(4);
    small.end();
    let mut reader = small.reader();
    assert_eq!(small.store(), 4 * (3 << 10), "it began to read from the first file");
    let mut position = 0;
    loop {
        match reader.now().await {
            Next::Chunk(chunk) => {
                assert_eq!(chunk.offset, position, "a hole");
                position = chunk.end();
            }
            Next::Ended(ended) => break assert_eq!((position, ended.offset), (24 << 10, 24 << 10)),
            Next::Nothing => panic!("no end"),
        }
    }
    assert_eq!(small.store(), 24 << 10);
}

#[tokio::test]
async fn a_full_disk_costs_the_oldest_output_only() {
    let output = Arc::new(Output::default());
    output.set_disk(Disk::Failed);
    for _ in 0..3 {
        output.push(Stream::STREAM_STDOUT, vec![b'x'; TAIL / 2].into());
    }
    let mut reader = reader(&output, Some(0));
    assert!(output.has_reader_behind());
    output.forget_beyond(TAIL - 1);
    assert!(output.in_memory() < TAIL);
    assert_eq!(data(reader.now().await).0, TAIL as u64);
    assert!(!output.has_reader_behind());
}
