//! What `garth cluster manifests` says about node pools: which flag is missing, and no flag that does nothing.

use snapbox::{assert_data_eq, str};

use crate::snapshot::alone;

#[track_caller]
fn refused(flags: &[&str], sentence: &str) {
    let done = alone(&[&["cluster", "manifests"], flags].concat());
    assert!(done.starts_with("exit 2\n") && done.contains(sentence), "{flags:?}: {done}");
}

#[test]
fn a_missing_flag_is_asked_for_by_name() {
    let karpenter = ["--provider", "eks", "--autoscaler", "karpenter"];
    let groups = ["--provider", "eks", "--autoscaler", "cluster-autoscaler"];
    let named = ["--cluster-name", "agents"];
    for (flags, sentence) in [
        (&["--provider", "eks"][..], "--provider needs --autoscaler"),
        (&["--autoscaler", "karpenter"], "--autoscaler needs --provider"),
        (&karpenter, "needs --cluster-name"),
        (&[karpenter, [named[0], named[1], "--max-cpus", "8"]].concat(), "needs --node-role"),
        (&[karpenter, [named[0], named[1], "--node-role", "x"]].concat(), "needs --kubernetes-version"),
        (&[groups, [named[0], named[1], "--spare", "1"]].concat(), "needs --zones"),
        (&[groups, [named[0], named[1], "--zones", "a"]].concat(), "needs --region"),
        (&[groups, [named[0], named[1], "--node-role", "x"]].concat(), "has no use for --node-role"),
        (&[karpenter, [named[0], named[1], "--zones", "a"]].concat(), "has no use for --zones"),
        (&["--spare", "2"], "--spare is about node pools"),
    ] {
        refused(flags, sentence);
    }
}

#[test]
fn a_name_is_no_script() {
    assert_data_eq!(
        alone(&[
            "cluster",
            "manifests",
            "--provider=eks",
            "--autoscaler=karpenter",
            "--runtimes=default",
            "--cluster-name=x'; reboot",
            "--node-role=nodes",
        ]),
        str![[r#"
exit 2
--- stdout
--- stderr
garth: --cluster-name is made of letters, digits, '-' and '_', and "x'; reboot" is not

"#]]
    );
}

#[test]
fn groups_are_in_the_file_or_among_the_objects() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("groups.yaml");
    let flags = ["cluster", "manifests", "--provider=eks", "--autoscaler=cluster-autoscaler"];
    let flags = [&flags[..], &["--cluster-name=agents", "--region=eu-central-1", "--zones=eu-central-1a"]].concat();
    assert!(alone(&flags).contains("kind: ClusterConfig"));
    let to_file = format!("--node-groups={}", file.display());
    let printed = alone(&[&flags[..], &[&to_file]].concat());
    assert!(printed.contains("kind: RuntimeClass") && !printed.contains("kind: ClusterConfig"), "{printed}");
    let written = std::fs::read_to_string(file).expect("the groups");
    assert!(written.contains("kind: ClusterConfig") && written.contains("garth-microvm-eu-central-1a"), "{written}");
}
