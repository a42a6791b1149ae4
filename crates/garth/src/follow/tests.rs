use std::path::PathBuf;

use buffa::Message as _;
use garth_protocol::agent::{Event as Sent, Started};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::*;
use crate::context::{Context, Format};
use crate::daemon::Endpoint;

#[track_caller]
fn check(next: u64, offset: u64, data: &str, (at, fresh_data, lost): (u64, &str, u64)) {
    let piece = Piece { stream: Stream::Stdout, offset: at, data: Bytes::copy_from_slice(fresh_data.as_bytes()), lost };
    assert_eq!(fresh(next, piece_of_output(offset, data)), piece);
}

fn piece_of_output(offset: u64, data: &str) -> Output {
    let data = Bytes::copy_from_slice(data.as_bytes());
    Output { stream: Stream::Stdout.into(), offset, data, ..Output::default() }
}

#[test]
fn no_byte_is_lost_or_seen_twice() {
    check(5, 5, "abc", (5, "abc", 0));
    check(6, 5, "abc", (6, "bc", 0));
    check(8, 5, "abc", (8, "", 0));
    check(9, 5, "abc", (9, "", 0));
}

#[test]
fn a_hole_is_counted() {
    check(2, 5, "abc", (5, "abc", 3));
}

#[test]
fn ids_are_what_the_agent_takes() {
    let id = new_id().expect("random");
    assert!(id.len() == 8 && id.bytes().all(|c| c.is_ascii_hexdigit()), "{id}");
    assert_ne!(id, new_id().expect("random"));
}

/// What the daemon does with the next request: the events it sends, and how the answer ends.
struct Turn {
    method: &'static str,
    events: Vec<Event>,
    end: End,
}

enum End {
    Breaks,
    Cleanly,
    /// The agent's own refusal.
    Refused(&'static str),
}

fn started() -> Event {
    Started { id: "p".into(), pid: 7, ..Started::default() }.into()
}

fn output(offset: u64, data: &str) -> Event {
    piece_of_output(offset, data).into()
}

fn exited() -> Event {
    Ended { reason: EndReason::Exited.into(), exit_code: 3, ..Ended::default() }.into()
}

fn turn(method: &'static str, events: Vec<Event>, end: End) -> Turn {
    Turn { method, events, end }
}

/// A daemon that answers one request per connection and then breaks it; returns what it was asked.
fn daemon(socket: PathBuf, turns: Vec<Turn>) -> JoinHandle<Vec<(String, Bytes)>> {
    let listener = UnixListener::bind(socket).expect("bind");
    tokio::spawn(async move {
        let mut asked = Vec::new();
        for turn in turns {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let (path, message) = request(&mut stream).await;
            assert!(path.ends_with(turn.method), "{path} is not {}", turn.method);
            asked.push((path, message));
            stream.write_all(&answer(turn)).await.expect("answer");
        }
        asked
    })
}

/// The path and the message of a Connect request.
async fn request(stream: &mut UnixStream) -> (String, Bytes) {
    let mut bytes = Vec::new();
    loop {
        assert!(stream.read_buf(&mut bytes).await.expect("read") > 0, "the request is cut off");
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a whole body");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("head") + 4;
        if bytes.len() >= end + length.trim().parse::<usize>().expect("length") {
            let path = String::from_utf8_lossy(&bytes).split(' ').nth(1).expect("path").to_owned();
            // Five bytes of envelope: flags and length.
            return (path, Bytes::copy_from_slice(&bytes[end + 5..]));
        }
    }
}

fn answer(turn: Turn) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/connect+proto\r\n".to_vec();
    answer.extend(b"transfer-encoding: chunked\r\n\r\n");
    let mut chunk = |flags: u8, message: &[u8]| {
        answer.extend(format!("{:x}\r\n", message.len() + 5).bytes());
        answer.push(flags);
        answer.extend((message.len() as u32).to_be_bytes());
        answer.extend(message);
        answer.extend(b"\r\n");
    };
    for event in turn.events {
        chunk(0, &Sent { event: Some(event), ..Sent::default() }.encode_to_vec());
    }
    match turn.end {
        End::Breaks => return answer,
        End::Cleanly => chunk(2, b"{}"),
        End::Refused(code) => chunk(2, format!(r#"{{"error":{{"code":"{code}","message":"no"}}}}"#).as_bytes()),
    }
    answer.extend(b"0\r\n\r\n");
    answer
}

struct World {
    context: Context,
    project: garth_spec::ProjectName,
    asked: JoinHandle<Vec<(String, Bytes)>>,
    _dir: TempDir,
}

fn world(turns: Vec<Turn>) -> World {
    let dir = tempfile::tempdir().expect("dir");
    let socket = dir.path().join("s");
    let asked = daemon(socket.clone(), turns);
    let context = Context::new(Endpoint::Elsewhere(garth_api::Place::Socket(socket)), Format::Text);
    World { context, project: "web".parse().expect("name"), asked, _dir: dir }
}

/// All output of a start, and how it ended.
async fn run(world: &World) -> Result<(String, Vec<Happened>)> {
    let agent = Agent::of(&world.context, &world.project, Start::OnDemand);
    let request = StartRequest { id: "p".into(), argv: vec!["x".into()], ..StartRequest::default() };
    let mut follower = Follower::start(&agent, request).await?;
    let (mut text, mut rest) = (String::new(), Vec::new());
    while let Some(happened) = follower.next().await? {
        match happened {
            Happened::Output(piece) => text += &String::from_utf8_lossy(&piece.data),
            other => rest.push(other),
        }
    }
    Ok((text, rest))
}

#[tokio::test]
async fn output_goes_on_where_the_daemon_broke_off() {
    let world = world(vec![
        turn("Start", vec![started(), output(0, "abc"), output(3, "def")], End::Breaks),
        turn("Attach", vec![started()], End::Breaks),
        turn("Attach", vec![started(), output(5, "fgh")], End::Breaks),
        turn("Attach", vec![started(), output(8, "i"), exited()], End::Cleanly),
    ]);
    let (text, rest) = run(&world).await.expect("resumes");
    assert_eq!(text, "abcdefghi");
    assert!(matches!(&rest[..], [Happened::Started, Happened::Ended(_)]), "{rest:?}");
    let asked = world.asked.await.expect("daemon");
    let since = |at: usize| AttachRequest::decode(&mut asked[at].1.clone()).expect("attach").since_offset;
    assert_eq!([since(1), since(2), since(3)], [Some(6), Some(6), Some(8)]);
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_is_one_start() {
    let world = world(vec![
        turn("Start", vec![], End::Breaks),
        turn("Start", vec![], End::Refused("already_exists")),
        turn("Attach", vec![started(), output(0, "once"), exited()], End::Cleanly),
    ]);
    let (text, _) = run(&world).await.expect("resumes");
    assert_eq!(text, "once");
    let asked = world.asked.await.expect("daemon");
    let id = |at: usize| StartRequest::decode(&mut asked[at].1.clone()).expect("start").id;
    assert_eq!([id(0), id(1)], ["p", "p"]);
}

#[tokio::test]
async fn someone_elses_id_is_not_taken_over() {
    let world = world(vec![turn("Start", vec![], End::Refused("already_exists"))]);
    assert_eq!(run(&world).await.expect_err("refused").code, "already_exists");
}

#[tokio::test]
async fn a_daemon_that_breaks_for_ever_is_given_up() {
    let breaks = (0..=BREAKS).map(|_| turn("Attach", vec![started()], End::Breaks));
    let first = turn("Start", vec![started()], End::Breaks);
    let world = world(std::iter::once(first).chain(breaks).collect());
    assert_eq!(run(&world).await.expect_err("given up").code, "protocol");
}
