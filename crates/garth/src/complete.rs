//! Completion of names from the daemon that runs; never starts one, never waits long.

use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};
use garth_api::{Client, ClientError};

use crate::cli::Global;
use crate::daemon::Endpoint;

/// A shell that waits longer for a completion feels broken.
const PATIENCE: Duration = Duration::from_millis(500);

/// Completes the names of projects.
pub fn projects() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        names(async |client| {
            let projects = client.projects().await?.projects;
            Ok(projects.into_iter().map(|project| (project.name.to_string(), project.state.to_string())).collect())
        })
    })
}

/// Completes one end of a copy: a file here, or `NAME:` of a project.
pub fn copies() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let typed = current.to_string_lossy();
        let projects = names(async |client| {
            let projects = client.projects().await?.projects;
            Ok(projects.into_iter().map(|project| (format!("{}:", project.name), project.state.to_string())).collect())
        });
        let mut found: Vec<_> = PathCompleter::any().complete(current);
        found.extend(projects.into_iter().filter(|name| name.get_value().to_string_lossy().starts_with(&*typed)));
        found
    })
}

/// Completes the names of images.
pub fn images() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        names(async |client| {
            let images = client.images().await?.images;
            Ok(images.into_iter().map(|image| (image.name.to_string(), String::new())).collect())
        })
    })
}

fn names(ask: impl AsyncFn(Client) -> Result<Vec<(String, String)>, ClientError>) -> Vec<CompletionCandidate> {
    let found = endpoint().zip(crate::runtime().ok()).and_then(|(endpoint, runtime)| {
        let asked = async { tokio::time::timeout(PATIENCE, ask(endpoint.client())).await };
        runtime.block_on(asked).ok()?.ok()
    });
    found.unwrap_or_default().into_iter().map(|(name, help)| candidate(name, help)).collect()
}

fn candidate(name: String, help: String) -> CompletionCandidate {
    CompletionCandidate::new(name).help((!help.is_empty()).then(|| help.into()))
}

/// The daemon of the command line being completed.
fn endpoint() -> Option<Endpoint> {
    let words: Vec<_> = std::env::args_os().collect();
    let flag = |name: &str| words.windows(2).find(|pair| pair[0] == OsStr::new(name)).map(|pair| pair[1].clone());
    let host = flag("--host").and_then(|host| host.to_str()?.parse().ok());
    let flags = Global { data_dir: flag("--data-dir").map(Into::into), host, json: false };
    Endpoint::of(&flags, |name| std::env::var_os(name)).ok()
}
