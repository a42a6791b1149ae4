use garth_spec::{Observed, ProbeCall, ProbeReport, ProbeRequest, Try};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::support::{Agent, Socket, soon};

async fn send(agent: &Agent, body: String) -> Result<Response<Incoming>, connectrpc::ConnectError> {
    use connectrpc::client::ClientTransport as _;
    let body = http_body_util::Full::new(bytes::Bytes::from(body)).map_err(|never| match never {}).boxed();
    let request = Request::post("/garth/probe").body(body).expect("request");
    soon(Socket(agent.socket()).send(request)).await
}

async fn ask(agent: &Agent, body: String) -> (StatusCode, Vec<u8>) {
    let answer = send(agent, body).await.expect("answer");
    let status = answer.status();
    (status, soon(answer.into_body().collect()).await.expect("body").to_bytes().to_vec())
}

async fn tried(agent: &Agent, tries: Vec<Try>) -> Vec<Observed> {
    let (status, body) = ask(agent, serde_json::to_string(&ProbeRequest { tries }).expect("JSON")).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice::<ProbeReport>(&body).expect("a report").observed
}

#[tokio::test]
async fn tries_are_made_in_order_by_a_process_that_is_not_the_agent() {
    let agent = Agent::start().await;
    let path = |name: &str| agent.directory().join(name).to_string_lossy().into_owned();
    std::fs::write(path("file"), "words").expect("file");
    let tries = vec![
        Try::Read(path("file")),
        Try::Read(path("missing")),
        Try::Link("/proc/self".to_owned()),
        Try::Loopback,
        Try::Call(ProbeCall::UnshareUser),
        Try::Entries("/proc/self/fd".to_owned()),
        Try::Threads(20),
        Try::Allocate(1 << 20),
    ];
    let observed = tried(&agent, tries).await;
    assert_eq!(observed[..2], [Observed::Text("words".to_owned()), Observed::Errno(2)]);
    assert_ne!(observed[2], Observed::Text(agent.pid().to_string()));
    assert_eq!(observed[3], Observed::Done);
    assert!(matches!(observed[4], Observed::Done | Observed::Errno(_)), "{observed:?}");
    assert_eq!(observed[5], Observed::Text("0\n1\n2\n3".to_owned()));
    assert_eq!(observed[6..], [Observed::Done, Observed::Done]);
}

#[tokio::test]
async fn it_is_not_among_the_processes_that_were_started() {
    let agent = Agent::start().await;
    tried(&agent, vec![Try::Loopback]).await;
    let listed = soon(agent.processes().list(garth_protocol::agent::ListRequest::default())).await.expect("list");
    assert_eq!(listed.into_owned().processes.len(), 0);
}

#[tokio::test]
async fn what_makes_no_sense_is_answered_and_the_agent_goes_on() {
    let agent = Agent::start().await;
    for body in ["", "[]", r#"{"tries": ["nonsense"]}"#, r#"{"tries": [], "more": 1}"#] {
        assert_eq!(ask(&agent, body.to_owned()).await.0, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
    }
    // Refused before it is read whole, at which the one who sends may see the answer or a closed connection.
    let large = send(&agent, "x".repeat(1 << 20)).await;
    assert!(large.map_or(true, |answer| answer.status() == StatusCode::BAD_REQUEST));
    assert_eq!(tried(&agent, Vec::new()).await, []);
}
