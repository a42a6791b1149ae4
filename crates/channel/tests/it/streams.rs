//! What a holder of streams sees.

use garth_channel::{End, MOST_STREAMS, OpenError, WINDOW};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{both, stream};

const MUCH: usize = 8 << 20;

fn pattern(seed: u64) -> Vec<u8> {
    (0..MUCH as u64).map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 11) as u8).collect()
}

#[tokio::test]
async fn many_streams_carry_much_in_both_directions_at_once() {
    let (host, mut guest) = both().await;
    let mut tasks = Vec::new();
    for seed in 0..4 {
        let (ours, theirs) = stream(&host, &mut guest).await;
        for (end, sends, gets) in [(ours, seed, seed + 100), (theirs, seed + 100, seed)] {
            tasks.push(tokio::spawn(async move {
                let (mut reading, mut writing) = tokio::io::split(end);
                let send = async {
                    writing.write_all(&pattern(sends)).await.expect("write");
                    writing.shutdown().await.expect("shutdown");
                };
                let mut got = Vec::new();
                let ((), read) = tokio::join!(send, reading.read_to_end(&mut got));
                read.expect("read");
                assert!(got == pattern(gets), "what came is not what was sent");
            }));
        }
    }
    for task in tasks {
        task.await.expect("stream");
    }
}

#[tokio::test]
async fn a_writer_waits_for_its_reader_and_no_other_stream_does() {
    let (host, mut guest) = both().await;
    let (mut slow, mut unread) = stream(&host, &mut guest).await;
    let writer = tokio::spawn(async move { slow.write_all(&vec![1; 4 * WINDOW]).await });
    let (mut quick, mut other) = stream(&host, &mut guest).await;
    for _ in 0..1000 {
        quick.write_all(b"ping").await.expect("write");
        let mut ping = [0; 4];
        other.read_exact(&mut ping).await.expect("read");
        other.write_all(&ping).await.expect("write");
        quick.read_exact(&mut ping).await.expect("read");
    }
    assert!(!writer.is_finished(), "nobody read it");
    let mut all = vec![0; 4 * WINDOW];
    unread.read_exact(&mut all).await.expect("read");
    writer.await.expect("task").expect("write");
}

#[tokio::test]
async fn slices_arrive_as_one_text() {
    let (host, mut guest) = both().await;
    let (mut ours, mut theirs) = stream(&host, &mut guest).await;
    let text = pattern(3);
    let reader = tokio::spawn(async move {
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.map(|_| got)
    });
    let mut at = 0;
    while at < text.len() {
        let (a, b) = text[at..].split_at((text.len() - at).min(1000));
        let slices = [std::io::IoSlice::new(a), std::io::IoSlice::new(&[]), std::io::IoSlice::new(b)];
        at += ours.write_vectored(&slices).await.expect("write");
    }
    ours.shutdown().await.expect("shutdown");
    assert!(reader.await.expect("task").expect("read") == text, "what came is not what was sent");
}

#[tokio::test]
async fn half_a_stream_can_be_closed() {
    let (host, mut guest) = both().await;
    let (mut ours, mut theirs) = stream(&host, &mut guest).await;
    ours.write_all(b"question").await.expect("write");
    ours.shutdown().await.expect("shutdown");
    let mut text = String::new();
    theirs.read_to_string(&mut text).await.expect("read");
    assert_eq!(text, "question");
    theirs.write_all(b"answer").await.expect("write");
    drop(theirs);
    let mut text = [0; 6];
    ours.read_exact(&mut text).await.expect("read");
    assert_eq!(&text, b"answer");
    let error = ours.read_u8().await.expect_err("dropped without an end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_stream_beyond_the_most_is_refused_until_one_ends() {
    let (host, mut guest) = both().await;
    let mut streams = Vec::new();
    for _ in 0..MOST_STREAMS {
        streams.push(stream(&host, &mut guest).await);
    }
    assert_eq!(host.open().expect_err("too many"), OpenError::TooManyStreams);
    streams.pop();
    stream(&host, &mut guest).await;
}

#[tokio::test]
async fn the_session_is_closed_with_its_last_holder() {
    let (host, mut guest) = both().await;
    let (ours, mut theirs) = stream(&host, &mut guest).await;
    let clone = host.clone();
    drop(host);
    drop(ours);
    assert_eq!(theirs.read_u8().await.expect_err("reset").kind(), std::io::ErrorKind::ConnectionReset);
    let (ours, _theirs) = stream(&clone, &mut guest).await;
    drop(clone);
    drop(ours);
    assert_eq!(guest.accept().await.expect_err("closed"), End::Gone);
}

#[tokio::test]
async fn a_session_can_be_closed_over_its_streams() {
    let (host, mut guest) = both().await;
    let (mut ours, mut theirs) = stream(&host, &mut guest).await;
    host.close();
    assert_eq!(ours.read_u8().await.expect_err("closed").kind(), std::io::ErrorKind::NotConnected);
    assert_eq!(theirs.read_u8().await.expect_err("gone").kind(), std::io::ErrorKind::ConnectionAborted);
    assert_eq!((host.ended().await, guest.accept().await.expect_err("gone")), (End::Closed, End::Gone));
}

#[tokio::test]
async fn the_end_of_the_guest_is_an_error_on_every_stream() {
    let (host, mut guest) = both().await;
    let (mut ours, theirs) = stream(&host, &mut guest).await;
    drop(guest);
    assert_eq!(host.ended().await, End::Gone);
    assert_eq!(ours.read_u8().await.expect_err("ended").kind(), std::io::ErrorKind::ConnectionAborted);
    assert!(ours.write_all(b"x").await.is_err());
    assert_eq!(host.open().expect_err("ended"), OpenError::Ended(End::Gone));
    drop(theirs);
}
