use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event::{Init, InitApply, InitDone};

use super::*;

fn pod(project: &str) -> Pod {
    let labels = [(PROJECT_LABEL.to_owned(), project.to_owned())].into();
    let metadata = ObjectMeta {
        name: Some(project.to_owned()),
        namespace: Some("agents".to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    Pod { metadata, ..Pod::default() }
}

/// What a watch tells of, each with the Pods that its copy has at that moment.
async fn told(events: Vec<watcher::Event<Pod>>) -> Vec<(String, Vec<String>)> {
    let mut watches = SelectAll::new();
    let pods = watch(&mut watches, stream::iter(events.into_iter().map(Ok)), about::<Pod>);
    let told = watches.map(|about| {
        let mut names: Vec<String> = pods.state().iter().map(|pod| pod.name_any()).collect();
        names.sort();
        let about = match about {
            About::Project(project) => project.name,
            other => format!("{other:?}"),
        };
        (about, names)
    });
    told.collect().await
}

#[tokio::test]
async fn a_change_is_told_of_with_its_object_there_or_gone() {
    let told = told(vec![Init, InitDone, watcher::Event::Apply(pod("one")), watcher::Event::Delete(pod("one"))]).await;
    assert_eq!(told[1..], [("one".to_owned(), vec!["one".to_owned()]), ("one".to_owned(), vec![])]);
}

#[tokio::test]
async fn a_watch_that_begins_anew_has_everything_looked_at_once_its_copy_is_whole() {
    let list = |names: &[&str]| names.iter().map(|name| InitApply(pod(name))).collect::<Vec<_>>();
    let first = [vec![Init], list(&["one", "gone"]), vec![InitDone]].concat();
    // What went meanwhile is not in it, and no event tells of that.
    let anew = [vec![Init], list(&["one", "new"]), vec![InitDone]].concat();
    let told = told([first, anew].concat()).await;
    let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
    assert_eq!(told, [("All".to_owned(), names(["gone", "one"])), ("All".to_owned(), names(["new", "one"]))]);
}
