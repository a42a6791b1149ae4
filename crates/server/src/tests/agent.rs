use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use futures::StreamExt as _;
use garth_api::{ErrorCode, full_body, routes, stream_body};
use garth_spec::ProjectState;
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::scene::{Scene, named, refused};

/// Answers `/echo` with the body as it comes, and anything else with the path it was asked for.
async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    let path = request.uri().to_string();
    let body = match path.as_str() {
        "/echo" => request.into_body().boxed(),
        _ => Full::new(Bytes::from(path)).map_err(|never| match never {}).boxed(),
    };
    let mut answer = Response::new(body);
    answer.headers_mut().insert(routes::ERROR_HEADER, HeaderValue::from_static("forged"));
    Ok(answer)
}

/// An agent where the host of numbers looks for one; counts its connections.
fn agent(scene: &Scene) -> Arc<AtomicUsize> {
    let listener = UnixListener::bind(scene.agent()).expect("bind");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, SeqCst);
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    connections
}

fn get(path: &str) -> Request<garth_api::Body> {
    Request::get(path).body(full_body("")).expect("request")
}

#[tokio::test]
async fn a_request_to_the_agent_of_a_stopped_project_starts_it_unless_told_not_to() {
    let scene = Scene::open().await;
    agent(&scene);
    let web = named("web");
    scene.create("web").await;
    let mut never = get("/x");
    never.headers_mut().insert(routes::START_HEADER, HeaderValue::from_static("never"));
    assert_eq!(refused(scene.client.agent(&web, never).await).code, ErrorCode::NotRunning);
    let answer = scene.client.agent(&web, get("/a%20b?c=%2F")).await.expect("an answer");
    // An agent cannot speak in the daemon's name.
    assert!(!answer.headers().contains_key(routes::ERROR_HEADER));
    let path = answer.into_body().collect().await.expect("body").to_bytes();
    assert_eq!(path, "/a%20b?c=%2F");
    assert_eq!(scene.client.project(&web).await.expect("inspect").state, ProjectState::Running);
}

#[tokio::test]
async fn connections_to_the_agent_are_kept() {
    let scene = Scene::open().await;
    let connections = agent(&scene);
    scene.create("web").await;
    for _ in 0..10 {
        let answer = scene.client.agent(&named("web"), get("/x")).await.expect("an answer");
        answer.into_body().collect().await.expect("body");
    }
    assert_eq!(connections.load(SeqCst), 1);
}

#[tokio::test]
async fn bytes_stream_both_ways_at_once() {
    let scene = Scene::open().await;
    agent(&scene);
    scene.create("web").await;
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let parts = futures::stream::unfold(receiver, |mut receiver| async {
        let part = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(part)), receiver))
    });
    let request = Request::post("/echo").body(stream_body(StreamBody::new(parts))).expect("request");
    let answer = scene.client.agent(&named("web"), request).await.expect("the head, before the body has ended");
    let mut echo = answer.into_body().into_data_stream();
    for word in ["one", "two", "three"] {
        sender.send(Bytes::from(word)).await.expect("send");
        assert_eq!(echo.next().await.expect("a part").expect("no error"), word);
    }
    drop(sender);
    assert!(echo.next().await.is_none());
}

#[tokio::test]
async fn an_agent_that_is_gone_is_said_to_be() {
    let scene = Scene::open().await;
    scene.create("web").await;
    let error = refused(scene.client.agent(&named("web"), get("/x")).await);
    assert_eq!((error.code, error.step.as_deref()), (ErrorCode::AgentUnreachable, Some("connect")));
}

#[tokio::test]
async fn the_agent_of_no_project_is_not_found() {
    let scene = Scene::open().await;
    assert_eq!(refused(scene.client.agent(&named("web"), get("/x")).await).code, ErrorCode::NotFound);
}
