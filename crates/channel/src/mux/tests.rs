use std::task::Waker;

use proptest::prelude::*;

use super::*;

fn guest_with(streams: u64) -> Mux {
    let mut mux = Mux::new(Side::Guest);
    for id in 1..=streams {
        assert_eq!(mux.receive(Frame::Open(id)), Ok(Some(id)));
    }
    mux
}

fn read(mux: &mut Mux, id: StreamId, most: usize) -> Poll<Result<usize, io::ErrorKind>> {
    let mut space = vec![0; most];
    let mut buffer = ReadBuf::new(&mut space);
    mux.poll_read(id, &mut Context::from_waker(Waker::noop()), &mut buffer)
        .map(|result| result.map(|()| buffer.filled().len()).map_err(|error| error.kind()))
}

fn write(mux: &mut Mux, id: StreamId, bytes: usize) -> Poll<Result<usize, io::ErrorKind>> {
    mux.poll_write(id, &mut Context::from_waker(Waker::noop()), &vec![7; bytes])
        .map(|result| result.map_err(|error| error.kind()))
}

fn flushed(mux: &mut Mux) -> usize {
    let mut out = BytesMut::new();
    mux.take_output(&mut out);
    out.len()
}

#[test]
fn data_beyond_the_window_is_a_violation() {
    let mut mux = guest_with(1);
    let payload = vec![0; LARGEST_PAYLOAD];
    for _ in 0..WINDOW / LARGEST_PAYLOAD {
        assert_eq!(mux.receive(Frame::Data(1, &payload)), Ok(None));
    }
    assert_eq!(mux.receive(Frame::Data(1, b"x")), Err(Violation::BeyondWindow));
}

#[test]
fn reading_gives_credit_back() {
    let mut mux = guest_with(1);
    let payload = vec![0; LARGEST_PAYLOAD];
    for _ in 0..50 {
        for _ in 0..WINDOW / LARGEST_PAYLOAD {
            assert_eq!(mux.receive(Frame::Data(1, &payload)), Ok(None));
        }
        assert_eq!(read(&mut mux, 1, WINDOW), Poll::Ready(Ok(WINDOW)));
    }
    assert!(flushed(&mut mux) <= 50 * 2 * 14);
    assert_eq!(read(&mut mux, 1, 1), Poll::Pending);
}

#[test]
fn a_writer_stops_at_the_credit_and_at_a_full_pipe() {
    let mut mux = guest_with(1);
    assert_eq!(write(&mut mux, 1, 1 << 20), Poll::Ready(Ok(LARGEST_PAYLOAD)));
    assert_eq!(write(&mut mux, 1, 1), Poll::Pending);
    for _ in 1..WINDOW / LARGEST_PAYLOAD {
        flushed(&mut mux);
        assert_eq!(write(&mut mux, 1, 1 << 20), Poll::Ready(Ok(LARGEST_PAYLOAD)));
    }
    flushed(&mut mux);
    assert_eq!(write(&mut mux, 1, 1), Poll::Pending);
    assert_eq!(mux.receive(Frame::Credit(1, 10)), Ok(None));
    assert_eq!(write(&mut mux, 1, 100), Poll::Ready(Ok(10)));
}

#[test]
fn what_no_peer_may_do_is_named() {
    let check = |side, frames: &[Frame<'_>], violation| {
        let mut mux = Mux::new(side);
        let (last, first) = frames.split_last().expect("frames");
        first.iter().for_each(|frame| assert!(mux.receive(*frame).is_ok(), "{frame:?}"));
        assert_eq!(mux.receive(*last), Err(violation), "{last:?}");
    };
    check(Side::Host, &[Frame::Open(1)], Violation::Open);
    check(Side::Guest, &[Frame::Open(0)], Violation::Open);
    check(Side::Guest, &[Frame::Open(3), Frame::Open(3)], Violation::Open);
    check(Side::Guest, &[Frame::Open(3), Frame::Open(2)], Violation::Open);
    check(Side::Guest, &[Frame::Data(1, b"x")], Violation::NoStream);
    check(Side::Host, &[Frame::Reset(0)], Violation::NoStream);
    check(Side::Guest, &[Frame::Open(1), Frame::Credit(1, 1)], Violation::BeyondCredit);
    check(Side::Guest, &[Frame::Open(1), Frame::Credit(1, u32::MAX)], Violation::BeyondCredit);
    check(Side::Guest, &[Frame::Open(1), Frame::Finish(1), Frame::Data(1, b"x")], Violation::BehindEnd);
    check(Side::Guest, &[Frame::Open(1), Frame::Finish(1), Frame::Finish(1)], Violation::BehindEnd);
    check(Side::Guest, &[Frame::Open(1), Frame::Reset(1), Frame::Reset(1)], Violation::BehindEnd);
    let many: Vec<_> = (1..=MOST_STREAMS as u64 + 1).map(Frame::Open).collect();
    check(Side::Guest, &many, Violation::TooManyStreams);
}

#[test]
fn a_host_opens_so_many_streams_and_again_as_many_when_they_are_dropped() {
    let mut mux = Mux::new(Side::Host);
    for round in 0..3 {
        let ids: Vec<_> = (0..MOST_STREAMS).map(|_| mux.open().expect("open")).collect();
        assert_eq!(mux.open(), Err(OpenError::TooManyStreams), "{round}");
        ids.into_iter().for_each(|id| mux.drop_line(id));
    }
    assert!(mux.is_unused());
}

#[test]
fn streams_to_a_peer_that_reads_nothing_are_refused_before_they_fill_the_memory() {
    let mut mux = Mux::new(Side::Host);
    let refused = (0..1_000_000).find_map(|_| match mux.open() {
        Ok(id) => {
            mux.drop_line(id);
            None
        }
        Err(error) => Some(error),
    });
    assert_eq!(refused, Some(OpenError::Stalled));
    assert!(flushed(&mut mux) <= HOARDED + 28);
}

#[test]
fn a_stream_that_both_sides_ended_is_no_longer_live_and_still_readable() {
    let mut mux = guest_with(MOST_STREAMS as u64);
    assert_eq!(mux.receive(Frame::Data(1, b"last words")), Ok(None));
    assert_eq!(mux.receive(Frame::Finish(1)), Ok(None));
    mux.finish(1);
    assert_eq!(mux.receive(Frame::Open(1000)), Ok(Some(1000)));
    assert_eq!(read(&mut mux, 1, 100), Poll::Ready(Ok(10)));
    assert_eq!(read(&mut mux, 1, 100), Poll::Ready(Ok(0)));
}

#[test]
fn what_came_before_a_reset_can_be_read_and_then_comes_an_error() {
    let mut mux = guest_with(1);
    assert_eq!(mux.receive(Frame::Data(1, b"abc")), Ok(None));
    assert_eq!(mux.receive(Frame::Reset(1)), Ok(None));
    assert_eq!(read(&mut mux, 1, 2), Poll::Ready(Ok(2)));
    assert_eq!(read(&mut mux, 1, 2), Poll::Ready(Ok(1)));
    assert_eq!(read(&mut mux, 1, 2), Poll::Ready(Err(io::ErrorKind::ConnectionReset)));
    assert_eq!(write(&mut mux, 1, 2), Poll::Ready(Err(io::ErrorKind::BrokenPipe)));
}

#[test]
fn frames_for_a_stream_that_was_dropped_mean_nothing() {
    let mut mux = guest_with(1);
    mux.drop_line(1);
    for frame in [Frame::Data(1, b"late"), Frame::Credit(1, 9), Frame::Finish(1), Frame::Reset(1)] {
        assert_eq!(mux.receive(frame), Ok(None));
    }
}

/// What a hostile host, and slow or odd readers, do in any order.
#[derive(Clone, Debug)]
enum Act {
    Open(u64),
    Data(u64, usize),
    Credit(u64, u32),
    Finish(u64),
    Reset(u64),
    Read(u64, usize),
    Write(u64, usize),
    End(u64),
    Drop(u64),
    Flush,
}

fn act() -> impl Strategy<Value = Act> {
    let id = || 0_u64..12;
    prop_oneof![
        id().prop_map(Act::Open),
        (id(), 1..LARGEST_PAYLOAD).prop_map(|(id, length)| Act::Data(id, length)),
        (id(), any::<u32>()).prop_map(|(id, more)| Act::Credit(id, more)),
        id().prop_map(Act::Finish),
        id().prop_map(Act::Reset),
        (id(), 0..WINDOW).prop_map(|(id, most)| Act::Read(id, most)),
        (id(), 0..WINDOW).prop_map(|(id, length)| Act::Write(id, length)),
        id().prop_map(Act::End),
        id().prop_map(Act::Drop),
        Just(Act::Flush),
    ]
}

proptest! {
    #[test]
    fn nothing_grows_beyond_its_bound(acts in prop::collection::vec(act(), 1..200)) {
        let mut mux = Mux::new(Side::Guest);
        let payload = vec![0; LARGEST_PAYLOAD];
        for act in acts {
            // A violation ends a session; here it goes on, so that more is tried.
            let _ = match act {
                Act::Open(id) => mux.receive(Frame::Open(id)),
                Act::Data(id, length) => mux.receive(Frame::Data(id, &payload[..length])),
                Act::Credit(id, more) => mux.receive(Frame::Credit(id, more)),
                Act::Finish(id) => mux.receive(Frame::Finish(id)),
                Act::Reset(id) => mux.receive(Frame::Reset(id)),
                Act::Read(id, most) => { let _ = read(&mut mux, id, most); Ok(None) }
                Act::Write(id, length) => { let _ = write(&mut mux, id, length); Ok(None) }
                Act::End(id) => { mux.finish(id); Ok(None) }
                Act::Drop(id) => { mux.drop_line(id); Ok(None) }
                Act::Flush => { flushed(&mut mux); Ok(None) }
            };
            prop_assert_eq!(mux.live, mux.lines.values().filter(|line| line.is_live()).count());
            prop_assert!(mux.lines.values().all(|line| line.unread() <= WINDOW));
            prop_assert!(mux.out.len() < FULL + LARGEST_PAYLOAD + 14 * 300);
            prop_assert!(mux.stalled.len() <= 2 * mux.last as usize);
        }
    }
}
