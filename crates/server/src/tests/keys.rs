use garth_api::{Client, CreateKey, CreateProject, ErrorCode, Place, Role, StopRequest};
use garth_spec::{ProjectSpec, Volume};
use tokio::net::TcpListener;

use super::scene::{Scene, named, refused};
use crate::peer::Peer;
use crate::router::router;

/// A caller over the network who shows this.
async fn over_network(scene: &Scene, key: Option<&str>) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let authority = listener.local_addr().expect("an address").to_string().parse().expect("host and port");
    let service = router(scene.app.clone()).into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    Client::at(Place::Network { authority, encrypted: false, key: key.map(str::to_owned) })
}

async fn key(scene: &Scene, role: Role, projects: &[&str]) -> garth_api::CreatedKey {
    let projects = projects.iter().map(|name| named(name)).collect();
    scene.client.create_key(&CreateKey { name: "test".to_owned(), role, projects }).await.expect("a key")
}

#[tokio::test]
async fn nobody_gets_in_without_a_key() {
    let scene = Scene::open().await;
    scene.create("web").await;
    for shown in [None, Some(""), Some("garth_00000000_00"), Some("root")] {
        let caller = over_network(&scene, shown).await;
        assert_eq!(refused(caller.projects().await).code, ErrorCode::Unauthenticated, "{shown:?}");
        assert_eq!(refused(caller.project(&named("web")).await).code, ErrorCode::Unauthenticated);
        assert_eq!(refused(caller.keys().await).code, ErrorCode::Unauthenticated);
        assert_eq!(refused(caller.start(&named("web")).await).code, ErrorCode::Unauthenticated);
        let (name, request) = (named("web"), http::Request::get("/health").body(garth_api::full_body("")));
        let agent = caller.agent(&name, request.expect("request"));
        assert_eq!(refused(agent.await).code, ErrorCode::Unauthenticated);
    }
}

#[tokio::test]
async fn a_role_may_do_what_it_is_for() {
    let scene = Scene::open().await;
    scene.create("web").await;
    let viewer = over_network(&scene, Some(&key(&scene, Role::Viewer, &[]).await.secret)).await;
    assert_eq!(viewer.projects().await.expect("a list").projects.len(), 1);
    assert_eq!(refused(viewer.start(&named("web")).await).code, ErrorCode::Forbidden);
    assert_eq!(refused(viewer.create(&CreateProject::default()).await).code, ErrorCode::Forbidden);
    assert_eq!(refused(viewer.images().await).code, ErrorCode::Forbidden);
    let user = over_network(&scene, Some(&key(&scene, Role::User, &[]).await.secret)).await;
    user.start(&named("web")).await.expect("started");
    user.stop(&named("web"), &StopRequest::default()).await.expect("stopped");
    assert_eq!(refused(user.keys().await).code, ErrorCode::Forbidden);
    assert_eq!(refused(user.create_key(&CreateKey::default()).await).code, ErrorCode::Forbidden);
    assert_eq!(refused(user.remove_image(&"debian".parse().expect("name")).await).code, ErrorCode::Forbidden);
    let admin = over_network(&scene, Some(&key(&scene, Role::Admin, &[]).await.secret)).await;
    assert_eq!(admin.keys().await.expect("a list").keys.len(), 3);
    // Directories of the host are for its root, whatever the key.
    let volume = Volume { host: "/tmp".to_owned(), read_only: true };
    let spec = ProjectSpec { volumes: [("/v".to_owned(), volume)].into(), ..ProjectSpec::default() };
    let with_volume = CreateProject { spec: spec.into(), ..CreateProject::default() };
    assert_eq!(refused(admin.create(&with_volume).await).code, ErrorCode::Forbidden);
}

#[tokio::test]
async fn a_key_for_certain_projects_sees_no_others() {
    let scene = Scene::open().await;
    for name in ["web", "db"] {
        scene.create(name).await;
    }
    let made = key(&scene, Role::User, &["web", "new"]).await;
    let caller = over_network(&scene, Some(&made.secret)).await;
    let seen: Vec<_> = caller.projects().await.expect("a list").projects.into_iter().map(|it| it.name).collect();
    assert_eq!(seen, [named("web")]);
    caller.start(&named("web")).await.expect("started");
    assert_eq!(refused(caller.project(&named("db")).await).code, ErrorCode::NotFound);
    assert_eq!(refused(caller.remove(&named("db")).await).code, ErrorCode::NotFound);
    let create = |name: Option<&str>| CreateProject { name: name.map(named), ..CreateProject::default() };
    assert_eq!(refused(caller.create(&create(Some("other"))).await).code, ErrorCode::NotFound);
    assert_eq!(refused(caller.create(&create(None)).await).code, ErrorCode::Forbidden);
    caller.create(&create(Some("new"))).await.expect("made");
    scene.client.revoke_key(&made.key.id).await.expect("revoked");
    assert_eq!(refused(caller.projects().await).code, ErrorCode::Unauthenticated);
    assert_eq!(refused(scene.client.revoke_key(&made.key.id).await).code, ErrorCode::NotFound);
}
