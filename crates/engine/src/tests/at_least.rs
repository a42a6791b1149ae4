//! Which runtime a new project gets that names none, but the least that will do.
use garth_spec::{Handler, ProjectSpec, Runtime, Volume};

use super::scene::Scene;
use crate::error::ErrorKind;

#[tokio::test]
async fn it_is_the_weakest_that_works_and_can_do_it() {
    let dir = tempfile::tempdir().expect("dir");
    let scene = Scene::open(dir.path()).await.expect("open");
    let works = |handlers: &[Handler]| scene.host.change(|world| world.handlers = handlers.to_vec());
    let gets = |least, spec: ProjectSpec| match scene.engine.at_least(least, &spec) {
        Ok(spec) => {
            assert_eq!(spec.at_least, Some(least));
            Ok(spec.runtime)
        }
        Err(error) => Err(error.kind().clone()),
    };
    let plain = ProjectSpec::default();
    let choice = |runtime: Runtime| Ok(runtime.into());
    assert_eq!(gets(Runtime::Default, plain.clone()), choice(Runtime::Default));
    match gets(Runtime::Sysbox, plain.clone()) {
        Err(ErrorKind::RuntimeUnavailable { runtime, .. }) => assert_eq!(runtime, Runtime::Sysbox.into()),
        other => panic!("{other:?}"),
    }
    works(&[Handler::MicrovmQemu]);
    assert_eq!(gets(Runtime::Sysbox, plain.clone()), choice(Runtime::Microvm));
    works(&[Handler::SysboxNative, Handler::MicrovmQemu]);
    assert_eq!(gets(Runtime::Sysbox, plain.clone()), choice(Runtime::Sysbox));
    assert_eq!(gets(Runtime::Microvm, plain.clone()), choice(Runtime::Microvm));
    // The default runtime has no inits of the image, and of microVMs those of QEMU alone have volumes.
    let init = ProjectSpec { init: Some("/sbin/init".to_owned()), ..plain.clone() };
    assert_eq!(gets(Runtime::Default, init.clone()), choice(Runtime::Sysbox));
    assert_eq!(gets(Runtime::Microvm, init), choice(Runtime::Microvm));
    let volume = Volume { host: "/srv".to_owned(), read_only: true };
    let shared = ProjectSpec { volumes: [("/srv".to_owned(), volume)].into(), ..plain };
    assert_eq!(gets(Runtime::Microvm, shared.clone()), choice(Runtime::Microvm));
    works(&[Handler::MicrovmFirecracker]);
    assert!(matches!(gets(Runtime::Microvm, shared), Err(ErrorKind::Spec(_))));
}
