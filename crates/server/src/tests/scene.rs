use std::path::Path;

use garth_api::{Client, ClientError, CreateProject, Error, Project};
use garth_engine::Engine;
use garth_spec::ProjectName;
use jiff::Timestamp;

use crate::router::{App, router};
use crate::socket;

/// A daemon on a host of numbers.
pub(super) struct Scene {
    pub(super) dir: tempfile::TempDir,
    pub(super) client: Client,
    pub(super) engine: Engine,
    /// What listens, to listen elsewhere as well.
    pub(super) app: App,
}

impl Scene {
    pub(super) async fn open() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let engine = Engine::fake(dir.path()).await.expect("engine");
        let path = dir.path().join("garth.sock");
        let listener = socket::listen(&path).expect("listen");
        let app = App {
            engine: crate::engine::Engine::Local(engine.clone()),
            keys: std::sync::Arc::new(crate::keys::Keys::new(crate::keys::KeyStore::File(
                dir.path().join("keys.json"),
            ))),
            data_dir: dir.path().into(),
            started_at: Timestamp::now(),
        };
        let served = router(app.clone());
        tokio::spawn(async move { axum::serve(listener, served).await });
        Self { client: Client::new(path), engine, app, dir }
    }

    pub(super) async fn create(&self, name: &str) -> Project {
        self.client
            .create(&CreateProject { name: Some(named(name)), ..CreateProject::default() })
            .await
            .expect("create")
    }

    /// Where agents of this host are looked for.
    pub(super) fn agent(&self) -> std::path::PathBuf {
        Path::new(self.dir.path()).join("agent.sock")
    }
}

pub(super) fn named(name: &str) -> ProjectName {
    name.parse().expect("a name")
}

#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Error {
    match answer {
        Err(ClientError::Refused(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}
