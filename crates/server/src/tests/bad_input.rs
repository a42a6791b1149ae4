use garth_api::{
    Body, ClientError, CreateProject, ErrorBody, ErrorCode, ImageFormat, ProjectPatch, StopRequest, full_body,
};
use garth_spec::{Handler, ProjectSpec, ProjectState, Runtime};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;

use super::scene::{Scene, named, refused};

async fn ask(scene: &Scene, method: Method, path: &str, body: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(full_body(body.to_owned())).expect("request");
    let answer = scene.client.send(request).await.expect("an answer");
    let (status, ours) = (answer.status(), answer.headers().contains_key(garth_api::routes::ERROR_HEADER));
    let text = answer.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(ours, !status.is_success(), "errors are marked as the daemon's own");
    (status, String::from_utf8(text.to_vec()).expect("text"))
}

#[track_caller]
fn check((status, text): (StatusCode, String), wanted: StatusCode, says: &str) {
    let error = serde_json::from_str::<ErrorBody>(&text).expect("an error as JSON").error;
    assert_eq!(status, wanted, "{text}");
    assert!(error.to_string().contains(says), "{error}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_what_is_wrong_with_it_and_leaves_nothing() {
    let scene = Scene::open().await;
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    for (body, says) in [
        ("{", "EOF while parsing"),
        ("[]", "invalid"),
        (r#"{"nmae": "web"}"#, "unknown field `nmae`"),
        (r#"{"name": ""}"#, "it is empty"),
        (r#"{"name": "../x"}"#, "outside a-z"),
        (r#"{"name": "раypal"}"#, "look-alikes"),
        (r#"{"spec": {"netwrok": "none"}}"#, "unknown field `netwrok`"),
        (r#"{"spec": {"runtime": "docker"}}"#, r#"unknown runtime "docker""#),
        (r#"{"spec": {"limits": {"memory": 0}}}"#, "not a size"),
        (r#"{"spec": {"limits": {"memory": -1}}}"#, "invalid"),
        (r#"{"spec": {"limits": {"memory": 1e99}}}"#, "invalid"),
        (r#"{"spec": {"limits": {"memory": 4096}}}"#, "16 MiB and above"),
        (r#"{"spec": {"limits": {"pids": 1}}}"#, "pids"),
        (r#"{"spec": {"env": {"A=B": "1"}}}"#, "A=B"),
        (r#"{"spec": {"workdir": "here"}}"#, "does not start with '/'"),
    ] {
        check(ask(&scene, Method::POST, "/v1/projects", body).await, BAD, says);
    }
    let long = format!(r#"{{"name": "{}"}}"#, "a".repeat(65));
    check(ask(&scene, Method::POST, "/v1/projects", &long).await, BAD, "longer than 63");
    check(ask(&scene, Method::GET, "/v1/projects/UPPER", "").await, BAD, "upper-case");
    check(ask(&scene, Method::GET, "/v1/projects/..%2f..%2fetc", "").await, BAD, "outside a-z");
    check(ask(&scene, Method::POST, "/v1/images?name=a&fromat=tar", "").await, BAD, "fromat");
    check(ask(&scene, Method::POST, "/v1/images?name=a&format=zip", "").await, BAD, "zip");
    check(ask(&scene, Method::GET, "/v1/project", "").await, StatusCode::NOT_FOUND, "/v1/project");
    check(ask(&scene, Method::PUT, "/v1/projects", "").await, StatusCode::METHOD_NOT_ALLOWED, "PUT");
    check(ask(&scene, Method::GET, "/v1/projects/nobody", "").await, StatusCode::NOT_FOUND, "nobody");
    assert_eq!(scene.client.projects().await.expect("list").projects, []);
}

#[tokio::test]
async fn a_spec_too_large_is_refused_before_it_is_read() {
    let scene = Scene::open().await;
    let body = format!(r#"{{"spec": {{"env": {{"A": "{}"}}}}}}"#, "a".repeat(8 << 20));
    check(ask(&scene, Method::POST, "/v1/projects", &body).await, StatusCode::BAD_REQUEST, "length limit");
}

#[tokio::test]
async fn refusals_have_the_code_that_programs_decide_by() {
    let scene = Scene::open().await;
    let client = &scene.client;
    let web = named("web");
    scene.create("web").await;
    let again = CreateProject { name: Some(web.clone()), ..CreateProject::default() };
    assert_eq!(refused(client.create(&again).await).code, ErrorCode::AlreadyExists);
    let image = ProjectSpec { image: "nope".parse().expect("name"), ..ProjectSpec::default() };
    let missing = refused(client.create(&CreateProject { spec: image.into(), ..CreateProject::default() }).await);
    assert_eq!((missing.code, missing.hint.is_some()), (ErrorCode::NotFound, true));
    let spec = ProjectSpec { runtime: Runtime::Sysbox.into(), ..ProjectSpec::default() };
    let sysbox = refused(client.create(&CreateProject { spec: spec.into(), ..CreateProject::default() }).await);
    assert_eq!(sysbox.code, ErrorCode::RuntimeUnavailable);
    let microvm = ProjectPatch { runtime: Some(Runtime::Microvm.into()), ..ProjectPatch::default() };
    let microvm = refused(client.patch(&web, &microvm).await);
    assert_eq!(microvm.code, ErrorCode::RuntimeUnavailable);
    assert!(microvm.message.contains("microvm"), "{microvm}");
    assert_eq!(refused(client.remove_image(&"host".parse().expect("name")).await).code, ErrorCode::ImageInUse);
    assert_eq!(refused(client.hold(&web).await.map(drop)).code, ErrorCode::Conflict);
}

#[tokio::test]
async fn an_import_to_a_taken_name_is_refused_though_the_body_is_never_read() {
    let scene = Scene::open().await;
    let name = "debian".parse().expect("name");
    let image = scene.client.import(&name, ImageFormat::Auto, full_body("a tar")).await.expect("import");
    assert_eq!(image.name, name);
    let endless = futures::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(http_body::Frame::data(bytes::Bytes::from(vec![0; 65536])))
    });
    let body: Body = garth_api::stream_body(http_body_util::StreamBody::new(endless));
    match scene.client.import(&name, ImageFormat::Auto, body).await {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, ErrorCode::AlreadyExists),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_no_image() {
    let scene = Scene::open().await;
    let name = "broken".parse().expect("name");
    let parts = [Ok(bytes::Bytes::from_static(b"half a tar")), Err(std::io::Error::other("the client went away"))];
    let parts = futures::stream::iter(parts.map(|part| part.map(http_body::Frame::data)));
    let body = garth_api::stream_body(http_body_util::StreamBody::new(parts));
    scene.client.import(&name, ImageFormat::Auto, body).await.expect_err("broken off");
    // The name is free again once the daemon has noticed.
    while scene.client.import(&name, ImageFormat::Auto, full_body("a tar")).await.is_err() {}
}

#[tokio::test]
async fn a_life_over_the_wire() {
    let scene = Scene::open().await;
    let (client, web) = (&scene.client, named("web"));
    let made = scene.create("web").await;
    assert_eq!((made.state, made.runtime.effective), (ProjectState::Stopped, None));
    let running = client.start(&web).await.expect("start");
    assert_eq!((running.state, running.runtime.effective), (ProjectState::Running, Some(Runtime::Default)));
    assert!(running.addresses.is_some() && running.sandbox_id.is_some());
    let patch = ProjectPatch { user: Some(Some("web".to_owned())), ..ProjectPatch::default() };
    let changed = client.patch(&web, &patch).await.expect("patch");
    assert_eq!((changed.at_next_start, changed.stopped), (vec!["user".to_owned()], false));
    let inspected = client.project(&web).await.expect("inspect");
    assert!(inspected.usage.is_some() && inspected.disk.is_some());
    let stopped = client.stop(&web, &StopRequest { grace_ms: Some(0) }).await.expect("stop");
    assert_eq!((stopped.state, stopped.sandbox_id), (ProjectState::Stopped, None));
    client.remove(&web).await.expect("remove");
    assert_eq!(refused(client.project(&web).await).code, ErrorCode::NotFound);
    assert_eq!(client.images().await.expect("images").images.len(), 1);
    assert_eq!(client.version().await.expect("version").api, "v1");
    assert_eq!(client.doctor().await.expect("doctor").runtimes.len(), Handler::ALL.len());
}

#[tokio::test]
async fn an_unnamed_project_gets_a_name() {
    let scene = Scene::open().await;
    let made = scene.client.create(&CreateProject::default()).await.expect("create");
    assert_eq!(scene.client.project(&made.name).await.expect("inspect").id, made.id);
}

#[tokio::test]
async fn a_dropped_connection_lets_an_ephemeral_project_go() {
    let scene = Scene::open().await;
    let made =
        scene.client.create(&CreateProject { ephemeral: true, ..CreateProject::default() }).await.expect("create");
    let (one, mut two) =
        (scene.client.hold(&made.name).await.expect("hold"), scene.client.hold(&made.name).await.expect("hold"));
    drop(one);
    assert_eq!(scene.client.project(&made.name).await.expect("still there").id, made.id);
    // The other hold ends with the project, which someone else removes.
    scene.client.remove(&made.name).await.expect("remove");
    two.ended().await;
    let made =
        scene.client.create(&CreateProject { ephemeral: true, ..CreateProject::default() }).await.expect("create");
    let watch = scene.engine.hold(&made.name).expect("hold");
    drop(scene.client.hold(&made.name).await.expect("hold"));
    drop(watch);
    while scene.client.project(&made.name).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
