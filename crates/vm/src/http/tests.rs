use super::*;
use crate::mock::{DONE, Fault, Mock};

const SHORT: Duration = Duration::from_millis(50);
/// What answers at all does so long before.
const PATIENCE: Duration = Duration::from_secs(20);

fn answered(fault: Fault) -> Result<Value, Error> {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("api.sock");
    let patience = if matches!(fault, Fault::Hangs) { SHORT } else { PATIENCE };
    Mock::fault(&socket, fault);
    Api::Trusted(socket).order(&Request::put("/vsock", Value::Bool(true)), patience)
}

fn says(text: &str) -> Fault {
    Fault::Says(text.to_owned())
}

#[track_caller]
fn fails(fault: Fault) -> ErrorKind {
    answered(fault).expect_err("an error").into_kind()
}

#[test]
fn an_answer_is_what_its_length_says() {
    assert_eq!(answered(says(DONE)).expect("done"), Value::Null);
    let version = answered(says("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"v\": 1}")).expect("a version");
    assert_eq!(version["v"], 1);
}

#[test]
fn a_refusal_is_told_in_the_programs_words() {
    let said = |status: &str, body: &str| match fails(says(&format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))) {
        ErrorKind::Refused { order, said } if order == "PUT /vsock" => said,
        other => panic!("{other}"),
    };
    assert_eq!(said("400 ", "{\"fault_message\": \"not now\\nnor ever\"}"), "not now");
    assert_eq!(
        said("500 ", "[\"Error from API\", \"The VM is not created\"]"),
        "Error from API: The VM is not created"
    );
    assert_eq!(said("404 ", ""), "404 ");
    assert_eq!(said("400 ", "\u{1b}[2Jgone"), "400 [2Jgone");
    assert_eq!(said("400 ", &"x".repeat(5000)).len(), 200);
}

#[test]
fn a_program_that_ends_is_told_from_one_that_hangs() {
    assert!(matches!(fails(says("")), ErrorKind::Gone));
    assert!(matches!(fails(says("HTTP/1.1 20")), ErrorKind::Gone));
    assert!(matches!(fails(says("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"v\"")), ErrorKind::Gone));
    assert!(matches!(fails(Fault::Hangs), ErrorKind::Silent { .. }));
    let nobody = Api::Trusted("/nowhere/api.sock".into()).order(&Request::get("/"), SHORT);
    assert!(matches!(nobody.expect_err("nobody").into_kind(), ErrorKind::Gone));
}

#[test]
fn what_is_no_answer_is_not_taken_for_one() {
    let nonsense = |text: &str| matches!(fails(says(text)), ErrorKind::Nonsense { .. });
    assert!(nonsense("\x7fELF"));
    assert!(nonsense("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ngarbage"));
    assert!(nonsense("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{\"v\": 1}"));
    assert!(nonsense("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"));
    assert!(nonsense("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 8\r\n\r\n{\"v\": 1}"));
    assert!(nonsense("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"));
    assert!(nonsense("HTTP/1.1 100 Continue\r\n\r\n"));
}

#[test]
fn an_answer_without_end_is_not_kept() {
    let nonsense = |first, again| matches!(fails(Fault::Repeats(first, again)), ErrorKind::Nonsense { .. });
    assert!(nonsense("HTTP/1.1 200 OK\r\n", "one: more\r\n"));
    assert!(nonsense("HTTP/1.1 200 OK\r\nlong: ", "xxxxxxxxxxxxxxxx"));
    assert!(nonsense("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "x"));
    assert!(nonsense("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "{}"));
}
