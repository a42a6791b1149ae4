//! Projects that no autoscaler can help: each says so, and what does.

use garth_spec::Runtime;
use serde_json::Value;

use crate::field::{Field, ready};

#[test]
fn a_pool_at_its_limit_is_named_until_it_is_raised() {
    let Some(field) = Field::open("a_pool_at_its_limit_is_named_until_it_is_raised") else { return };
    // One machine, whose own disk has room for five.
    field.pools(&[Runtime::Default], 4);
    field.projects(Runtime::Default, 0..12);
    // Five are promised the machine before others take it, and Karpenter says a thing again only after five minutes.
    let is_named = |project: &Value| {
        let said = ready(project)["message"].as_str().unwrap_or_default();
        said.contains("karpenter can make none for it") && said.contains("Its pool is at its limit: raise it")
    };
    field.until("some without room, who are told why", || {
        let named = field.all(Runtime::Default).values().filter(|project| is_named(project)).count();
        field.count(Runtime::Default, "Running") == 5 && named >= 2
    });
    assert_eq!(field.nodes(Runtime::Default).len(), 1);
    let raised = r#"{"spec":{"limits":{"cpu":"64"}}}"#;
    field.lab.run(&["patch", "nodepool", "garth-default", "--type=merge", "-p", raised]).expect("raised");
    field.until("room for all", || field.count(Runtime::Default, "Running") == 12);
}

#[test]
fn a_runtime_that_no_pool_has_is_said_with_the_labels_that_are_missing() {
    let test = "a_runtime_that_no_pool_has_is_said_with_the_labels_that_are_missing";
    let Some(field) = Field::open(test) else { return };
    field.pools(&Runtime::ALL, 64);
    field.lab.run(&["delete", "nodepool", "garth-microvm"]).expect("deleted");
    field.lab.add_fake_node("of-another-kind", &[]).expect("a node");
    field.projects(Runtime::Microvm, 0..1);
    let said = field.comes_to("microvm-0", "NoNodeFits");
    assert!(said.contains("garth.dev/runtime=microvm, katacontainers.io/kata-runtime=true"), "{said}");
    assert!(said.contains("No pool makes such nodes"), "{said}");
    // Another project is none the worse for it.
    field.projects(Runtime::Default, 0..1);
    field.comes_to("default-0", "Running");
}
