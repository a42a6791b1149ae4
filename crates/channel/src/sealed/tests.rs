use tokio::io::DuplexStream;
use tokio::net::UnixStream;

use super::*;

const SECRET: &str = "the heron stands in the reeds";

fn key(byte: u8) -> Key {
    Key([byte; 32])
}

/// Two ends that found each other.
async fn pair() -> (Sealed<UnixStream>, Sealed<UnixStream>) {
    let (a, b) = UnixStream::pair().expect("pair");
    let (a_key, b_key) = (key(7), key(7));
    let (a, b) = tokio::join!(connect(a, &a_key), accept(b, &b_key));
    (a.expect("connect"), b.expect("accept"))
}

/// Two ends, what of each comes to whoever is between them, and what the first said to prove that it is one.
async fn tapped() -> (Sealed<DuplexStream>, Sealed<DuplexStream>, DuplexStream, DuplexStream, Vec<u8>) {
    let ((a, mut a_wire), (b, mut b_wire)) = (tokio::io::duplex(1 << 20), tokio::io::duplex(1 << 20));
    let keys = (key(7), key(7));
    let pass = async {
        let (mut said, mut answer) = (vec![0; PROOF + TAG], [0; PROOF]);
        a_wire.read_exact(&mut said[..PROOF]).await.expect("a proof");
        b_wire.write_all(&said[..PROOF]).await.expect("passed on");
        b_wire.read_exact(&mut answer).await.expect("an answer");
        a_wire.write_all(&answer).await.expect("passed on");
        a_wire.read_exact(&mut said[PROOF..]).await.expect("a confirmation");
        b_wire.write_all(&said[PROOF..]).await.expect("passed on");
        said
    };
    let (a, b, said) = tokio::join!(connect(a, &keys.0), accept(b, &keys.1), pass);
    (a.expect("connect"), b.expect("accept"), a_wire, b_wire, said)
}

/// The records of these texts, as they are sent.
async fn records(sender: &mut Sealed<DuplexStream>, wire: &mut DuplexStream, texts: &[&str]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    for text in texts {
        sender.write_all(text.as_bytes()).await.expect("write");
        sender.flush().await.expect("flush");
        let mut record = vec![0; LENGTH + text.len() + TAG];
        wire.read_exact(&mut record).await.expect("a record");
        records.push(record);
    }
    records
}

#[test]
fn a_key_is_64_digits() {
    let of = |text: &str| Key::from_hex(text).map(|key| key.0);
    assert_eq!(of(&"0f".repeat(32)), Some([15; 32]));
    assert_eq!(of(&"0F".repeat(32)), Some([15; 32]));
    let odd = ["", "0f", &"0f".repeat(31), &"0f".repeat(33), &"0g".repeat(32), &"+f".repeat(32), &"é".repeat(32)];
    for text in odd {
        assert_eq!(of(text), None, "{text}");
    }
    assert_eq!(format!("{:?}", key(15)), "Key(..)");
}

#[tokio::test]
async fn what_one_side_writes_the_other_reads_to_the_end() {
    let (mut a, mut b) = pair().await;
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    // Both at once, each more than any buffer holds, in pieces of all sizes.
    let talk = async |mut end: Sealed<UnixStream>| {
        let mut heard = Vec::new();
        let (mut reader, mut writer) = tokio::io::split(&mut end);
        let write = async {
            let (mut rest, mut size) = (&sent[..], 1);
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rest.len().min(size));
                writer.write_all(piece).await.expect("write");
                (rest, size) = (more, size * 3 % 50_000 + 1);
            }
            writer.shutdown().await.expect("shutdown");
        };
        let (read, ()) = tokio::join!(reader.read_to_end(&mut heard), write);
        read.expect("the end");
        assert!(heard == sent);
        assert_eq!(end.write(b"more").await.expect_err("nothing behind the end").kind(), io::ErrorKind::BrokenPipe);
    };
    let slices = [io::IoSlice::new(b"of "), io::IoSlice::new(b""), io::IoSlice::new(&[1; RECORD])];
    assert_eq!(a.write_vectored(&slices).await.expect("slices"), RECORD);
    a.flush().await.expect("flush");
    let mut gathered = vec![0; RECORD];
    b.read_exact(&mut gathered).await.expect("one record of all");
    assert!(gathered.starts_with(b"of \x01"));
    tokio::join!(talk(a), talk(b));
}

#[tokio::test]
async fn who_listens_sees_neither_the_key_nor_what_is_said_nor_that_it_is_said_again() {
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for _ in 0..2 {
        let (mut a, mut b, mut a_wire, mut b_wire, _) = tapped().await;
        seen.extend(records(&mut a, &mut a_wire, &[SECRET, SECRET]).await);
        seen.extend(records(&mut b, &mut b_wire, &[SECRET, SECRET]).await);
    }
    for (at, record) in seen.iter().enumerate() {
        assert!(!record.windows(5).any(|window| window == b"heron" || window == [7; 5]));
        assert!(!seen[..at].contains(record), "the same bytes twice");
    }
}

#[tokio::test]
async fn what_was_changed_on_the_way_is_an_error() {
    type Change = fn(&mut Vec<Vec<u8>>);
    let changes: [(&str, Change); 8] = [
        ("a bit of the text", |records| records[1][LENGTH + 3] ^= 1),
        ("a bit of the tag", |records| *records[1].last_mut().expect("a tag") ^= 128),
        ("a length", |records| records[1][1] -= 1),
        ("no length", |records| records[1][..LENGTH].fill(0)),
        ("too much", |records| records[1][..LENGTH].fill(255)),
        ("again", |records| records[1] = records[0].clone()),
        ("left out", |records| drop(records.remove(1))),
        ("cut off", |records| records.truncate(1)),
    ];
    for (what, change) in changes {
        let (mut a, mut b, mut a_wire, mut b_wire, _) = tapped().await;
        let mut passed = records(&mut a, &mut a_wire, &["one", "two", "three"]).await;
        change(&mut passed);
        b_wire.write_all(&passed.concat()).await.expect("passed on");
        drop(b_wire);
        let mut heard = Vec::new();
        let error = b.read_to_end(&mut heard).await.expect_err(what);
        let expected = if what == "cut off" { io::ErrorKind::ConnectionAborted } else { io::ErrorKind::InvalidData };
        assert_eq!((error.kind(), &heard[..]), (expected, &b"one"[..]), "{what}");
    }
}

#[tokio::test]
async fn a_side_is_not_told_its_own_words() {
    let (mut a, _b, mut a_wire, _b_wire, _) = tapped().await;
    let own = records(&mut a, &mut a_wire, &[SECRET]).await;
    a_wire.write_all(&own[0]).await.expect("sent back");
    assert_eq!(a.read_u8().await.expect_err("refused").kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_stranger_hears_nothing() {
    let http = b"GET /files?path=/root HTTP/1.1\r\nHost: x\r\nX: 0123456789\r\n\r\n".to_vec();
    let mut other = builder(&key(8)).build_initiator().expect("an initiator");
    let mut proof = vec![0; PROOF];
    other.write_message(&[], &mut proof).expect("a proof");
    let mut older = Builder::new(PATTERN.parse().expect("pattern")).psk(0, &[7; 32]).expect("a key");
    older = older.prologue(b"garth agent 0").expect("a prologue");
    let mut older_proof = vec![0; PROOF];
    older.build_initiator().expect("an initiator").write_message(&[], &mut older_proof).expect("a proof");
    for said in [http, proof, older_proof, vec![0; 1000], Vec::new()] {
        let (mut stranger, end) = UnixStream::pair().expect("pair");
        stranger.write_all(&said).await.expect("write");
        stranger.shutdown().await.expect("shutdown");
        let refused = accept(end, &key(7)).await.expect_err("a stranger");
        assert!(matches!(refused, SealError::Stranger), "{refused:?}");
        let mut heard = Vec::new();
        // What the other end did not read is a reset, and no answer.
        let _ = stranger.read_to_end(&mut heard).await;
        assert!(heard.is_empty());
    }
}

#[tokio::test]
async fn who_plays_again_what_it_heard_is_a_stranger() {
    let (mut a, _b, mut a_wire, _b_wire, said) = tapped().await;
    let old = records(&mut a, &mut a_wire, &[SECRET]).await.concat();
    let (mut wire, end) = tokio::io::duplex(1 << 20);
    wire.write_all(&[said, old].concat()).await.expect("write");
    let refused = accept(end, &key(7)).await.expect_err("all of it was said before");
    assert!(matches!(refused, SealError::Stranger), "{refused:?}");
}

#[tokio::test]
async fn who_answers_without_the_key_is_told_nothing() {
    let (mut wire, end) = UnixStream::pair().expect("pair");
    wire.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.expect("write");
    let refused = connect(end, &key(7)).await.expect_err("no answer");
    assert!(matches!(refused, SealError::Stranger), "{refused:?}");
    let mut heard = Vec::new();
    let _ = wire.read_to_end(&mut heard).await;
    assert_eq!(heard.len(), PROOF);
}

#[tokio::test(start_paused = true)]
async fn who_proves_nothing_is_not_waited_for() {
    let (_silent, end) = tokio::io::duplex(1000);
    assert!(matches!(accept(end, &key(7)).await, Err(SealError::Late(PROVEN_WITHIN))));
    let (_silent, end) = tokio::io::duplex(1000);
    assert!(matches!(connect(end, &key(7)).await, Err(SealError::Late(PROVEN_WITHIN))));
}
