use garth_api::{ErrorCode, SetupMicrovm, SetupProgress, SetupStep};

use super::scene::{Scene, refused};

#[tokio::test]
async fn a_setup_says_how_far_it_is_and_then_what_it_made() {
    let scene = Scene::open().await;
    let mut said = Vec::new();
    let made = scene.client.setup_microvm(&SetupMicrovm::default(), |progress| said.push(progress)).await;
    assert_eq!(made.expect("made").release, "6.12");
    let at = |done| SetupProgress { step: SetupStep::Download, done, total: 10 };
    assert_eq!(said, [at(0), at(10)]);
}

#[tokio::test]
async fn a_setup_that_fails_says_why_in_its_last_line() {
    let scene = Scene::open().await;
    let ask = SetupMicrovm { kernel: Some("/etc/passwd".into()), modules: None };
    let mut said = 0;
    let error = refused(scene.client.setup_microvm(&ask, |_| said += 1).await);
    assert_eq!((error.code, error.hint.as_deref(), said), (ErrorCode::SetupFailed, Some("another"), 2));
    assert!(error.to_string().contains("cannot set up microvm"), "{error}");
}

#[tokio::test]
async fn a_kernel_is_named_by_a_whole_path() {
    let scene = Scene::open().await;
    let (kernel, modules) = (Some("vmlinuz".into()), Some("/lib/modules/6.1".into()));
    for ask in [SetupMicrovm { kernel, modules: None }, SetupMicrovm { kernel: None, modules }] {
        let error = refused(scene.client.setup_microvm(&ask, |_| {}).await);
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{error}");
    }
}
