use garth_protocol::agent::EndReason;

use super::*;

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
    use crate::process::ring::Ring;
    use garth_protocol::agent::Process;
    let temporary = tempfile::tempdir().expect("temporary directory");
    let keep = Keep::below(std::fs::File::open(temporary.path()).expect("open").into());
    let directory = keep.directory().expect("directory");
    let process = Process { id: "p1".to_owned(), ..Default::default() };
    let output = output_of(b"old ");
    let mut ring = Ring::create(directory, &process, 1 << 20).expect("ring");
    ring.append(&process, &output.unstored()).expect("append");
    output.stored(4, ring.segments());
    output.push(Stream::STREAM_STDOUT, Bytes::from_static(b"new"));
    assert_eq!(output.in_memory(), 3);
    let mut reader = Reader::new(Arc::clone(&output), "p1".to_owned(), Some(keep), Some(1));
    assert_eq!(data(reader.now().await), (1, Bytes::from_static(b"ld ")));
    assert_eq!(data(reader.now().await), (4, Bytes::from_static(b"new")));
    assert!(matches!(reader.now().await, Next::Nothing));
}

#[tokio::test]
async fn nothing_goes_missing_between_what_is_read_after_the_end() {
    use crate::process::ring::Ring;
    use garth_protocol::agent::Process;
    let temporary = tempfile::tempdir().expect("temporary directory");
    let keep = Keep::below(std::fs::File::open(temporary.path()).expect("open").into());
    let process = Process { id: "p1".to_owned(), ..Default::default() };
    let output = Arc::new(Output::default());
    let mut ring = Ring::create(keep.directory().expect("directory"), &process, 16 << 10).expect("ring");
    let mut store = || {
        ring.append(&process, &output.unstored()).expect("append");
        output.stored(ring.next(), ring.segments());
    };
    let push = || (0..4).for_each(|_| output.push(Stream::STREAM_STDOUT, vec![b'x'; 3 << 10].into()));
    push();
    store();
    push();
    output.end(Ended { reason: EndReason::END_REASON_EXITED.into(), ..Default::default() });
    let mut reader = Reader::new(Arc::clone(&output), "p1".to_owned(), Some(keep), Some(0));
    let reading = tokio::spawn(async move {
        let mut pieces = Vec::new();
        while let Next::Chunk(chunk) = reader.now().await {
            pieces.push((chunk.offset, chunk.end()));
        }
        pieces
    });
    tokio::task::yield_now().await;
    store();
    let pieces = reading.await.expect("reader");
    assert!(pieces[0].0 > 0, "the ring dropped nothing: {pieces:?}");
    assert!(pieces.windows(2).all(|pair| pair[0].1 == pair[1].0), "a hole: {pieces:?}");
    assert_eq!(pieces.last().expect("output").1, 24 << 10);
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
