use proptest::prelude::*;

use super::*;

fn hello() -> impl Strategy<Value = Hello> {
    (any::<u32>(), any::<[u8; 16]>()).prop_map(|(version, nonce)| Hello { version, nonce })
}

fn encoded(id: StreamId, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    Frame::Open(id).encode(&mut out);
    Frame::Data(id, payload).encode(&mut out);
    Frame::Credit(id, 7).encode(&mut out);
    Frame::Finish(id).encode(&mut out);
    Frame::Reset(id).encode(&mut out);
    out.to_vec()
}

/// What a receiver makes of bytes: payloads that it would deliver, and where it found no more.
fn delivered(mut bytes: &[u8]) -> (Vec<Vec<u8>>, Result<Option<Hello>, Violation>) {
    let mut payloads = Vec::new();
    loop {
        match decode(bytes) {
            Ok(Decoded::Incomplete) => return (payloads, Ok(None)),
            Ok(Decoded::Padding(done)) => bytes = &bytes[done..],
            Ok(Decoded::Hello(hello, _)) => return (payloads, Ok(Some(hello))),
            Ok(Decoded::Frame(frame, done)) => {
                if let Frame::Data(_, payload) = frame {
                    payloads.push(payload.to_vec());
                }
                bytes = &bytes[done..];
            }
            Err(violation) => return (payloads, Err(violation)),
        }
    }
}

proptest! {
    #[test]
    fn frames_come_back_as_they_were(id: StreamId, payload in prop::collection::vec(any::<u8>(), 1..300)) {
        let bytes = encoded(id, &payload);
        let mut at = &bytes[..];
        for frame in
            [Frame::Open(id), Frame::Data(id, &payload), Frame::Credit(id, 7), Frame::Finish(id), Frame::Reset(id)]
        {
            let Ok(Decoded::Frame(found, done)) = decode(at) else { panic!("no frame") };
            prop_assert_eq!(found, frame);
            at = &at[done..];
        }
        prop_assert!(at.is_empty());
    }

    #[test]
    fn garbage_is_an_error_or_a_frame_within_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        match decode(&bytes) {
            Ok(Decoded::Frame(_, done) | Decoded::Padding(done) | Decoded::Hello(_, done)) => {
                prop_assert!((1..=bytes.len()).contains(&done));
            }
            Ok(Decoded::Incomplete) | Err(_) => {}
        }
        let (done, found) = Hello::find(&bytes);
        prop_assert!(done <= bytes.len() && found.is_none());
    }

    /// Wherever a host died, nothing of its last frame is delivered, and the next host's hello is found.
    #[test]
    fn a_frame_that_was_cut_off_is_never_delivered(
        payload in prop::collection::vec(any::<u8>(), 1..100),
        cut in any::<prop::sample::Index>(),
        next in hello(),
    ) {
        let mut bytes = encoded(5, &payload);
        let cut = cut.index(bytes.len());
        bytes.truncate(cut);
        let mut greeting = BytesMut::zeroed(PREAMBLE);
        next.encode(&mut greeting);
        bytes.extend_from_slice(&greeting);
        let (payloads, _) = delivered(&bytes);
        prop_assert!(payloads.iter().all(|found| *found == payload));
        prop_assert_eq!(payloads.len(), usize::from(cut > 14 + HEADER + payload.len()));
        prop_assert_eq!(Hello::find(&bytes), (bytes.len(), Some(next)));
    }

    #[test]
    fn a_hello_is_found_however_it_comes(
        noise in prop::collection::vec(prop_oneof![Just(MAGIC[0]), any::<u8>()], 0..100),
        next in hello(),
        step in 1_usize..50,
    ) {
        let mut bytes = BytesMut::from(&noise[..]);
        next.encode(&mut bytes);
        let (mut start, mut end) = (0, 0);
        loop {
            let (done, found) = Hello::find(&bytes[start..end]);
            start += done;
            if let Some(found) = found {
                prop_assert_eq!(found, next);
                break;
            }
            prop_assert!(end < bytes.len(), "not found");
            end = (end + step).min(bytes.len());
        }
    }
}

#[test]
fn lengths_that_no_frame_has_are_errors_before_their_bytes_come() {
    for length in [0, LARGEST_PAYLOAD as u32 + 1, u32::MAX] {
        let mut bytes = vec![DATA, 1, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(length.to_le_bytes());
        assert_eq!(decode(&bytes), Err(Violation::Length), "{length}");
    }
}
