//! The scheduler's message in plain words.
//!
//! Without its counts: they change with every node that comes or goes, and with them the status of all that wait.

use std::collections::BTreeSet;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;

/// Why no node fits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// What nodes are like, each of some of them.
    nodes: BTreeSet<String>,
    /// Whether it stays so for as long as the nodes are these.
    lasts: bool,
    /// What says nothing of nodes, as the scheduler put it.
    other: Option<String>,
}

impl Cause {
    /// Reads `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. preemption: …`.
    pub(super) fn read(pod: &Pod, message: &str) -> Self {
        if message.starts_with("no nodes available") {
            let nothing = "the cluster has no node".to_owned();
            return Self { nodes: BTreeSet::new(), lasts: true, other: Some(nothing) };
        }
        // What follows the first sentence is about preemption.
        let list = message.split_once("nodes are available: ").map(|(_, list)| list.split(". ").next().unwrap_or(list));
        let clauses =
            list.map(|list| list.trim_end_matches('.').split(", ").map(uncounted).collect::<Option<Vec<_>>>());
        match clauses.flatten() {
            Some(clauses) => {
                let (nodes, lasts): (BTreeSet<_>, Vec<_>) = clauses.iter().map(|clause| plain(pod, clause)).unzip();
                Self { nodes, lasts: lasts.iter().all(|&lasts| lasts), other: None }
            }
            None => Self { nodes: BTreeSet::new(), lasts: false, other: Some(message.to_owned()) },
        }
    }

    /// Whether no node that there is could ever take it.
    pub(super) fn lasts(&self) -> bool {
        self.lasts
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(other) = &self.other {
            return f.write_str(other);
        }
        let which = if self.nodes.len() == 1 { "all" } else { "some" };
        f.write_str("no node fits: ")?;
        for (index, node) in self.nodes.iter().enumerate() {
            let before = if index == 0 { "" } else { ", " };
            write!(f, "{before}{which} {node}")?;
        }
        Ok(())
    }
}

/// Without the number of nodes in front; None of what is not said of nodes.
fn uncounted(clause: &str) -> Option<&str> {
    let (count, rest) = clause.trim().split_once(' ')?;
    count.bytes().all(|byte| byte.is_ascii_digit()).then_some(rest)
}

/// What nodes are like of which the scheduler says this (its plugins, `ErrReason…`), and whether it stays so.
fn plain(pod: &Pod, clause: &str) -> (String, bool) {
    if let Some(resource) = clause.strip_prefix("Insufficient ") {
        return (format!("have too little free {resource}"), false);
    }
    if clause.contains("node affinity/selector") {
        return (format!("lack the labels {}", selector(pod)), true);
    }
    if clause.contains("taint") {
        // Which one is not said by Kubernetes 1.36; those of a node that is being set up go away.
        let which = clause.split_once('{').map(|(_, taint)| taint.trim_end_matches('}').trim_end_matches([':', ' ']));
        let which = which.map(|taint| format!(" ({taint})")).unwrap_or_default();
        return (format!("have a taint that it does not tolerate{which}"), false);
    }
    if clause.contains("PersistentVolume's node affinity") || clause.contains("volume zone") {
        return ("are not where its disk is".to_owned(), true);
    }
    let words = match clause {
        "Too many pods" => "have as many Pods as they may",
        "node(s) were unschedulable" => "are cordoned",
        "node(s) exceed max volume count" => "have as many disks attached as they can",
        "node(s) didn't find available persistent volumes to bind" => "have no volume for its disk",
        "node(s) did not have enough free storage" => "have no storage left for its disk",
        other => return (format!("are refused by the scheduler ({other})"), false),
    };
    (words.to_owned(), false)
}

/// The labels that a Pod asks of its node, its RuntimeClass's among them.
fn selector(pod: &Pod) -> String {
    let labels = pod.spec.iter().flat_map(|spec| spec.node_selector.iter().flatten());
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    match labels.is_empty() {
        true => "that its affinity asks for".to_owned(),
        false => labels.join(", "),
    }
}
