//! Tells a person what a project waits for, as long as a request waits for its sandbox.

use std::convert::Infallible;
use std::time::Duration;

use garth_spec::{ProjectName, ProjectState};
use tokio::time::sleep;

use crate::context::Context;
use crate::output;

/// How often the project is looked at; a sandbox that starts sooner than that needs no word.
const EVERY: Duration = Duration::from_secs(2);

/// Does the work that starts a project's sandbox; meanwhile, each new reason why it does not run yet goes to stderr, if
/// that is a terminal.
pub async fn told<T>(context: &Context, project: &ProjectName, work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = work => done,
        never = tell(context, project) => match never {},
    }
}

async fn tell(context: &Context, project: &ProjectName) -> Infallible {
    let mut told = None;
    loop {
        sleep(EVERY).await;
        // The request itself says what is wrong with the daemon.
        let Ok(there) = context.client.project(project).await else { continue };
        if there.state == ProjectState::Running {
            return std::future::pending().await;
        }
        let now = there.waiting.map(|waiting| waiting.message);
        if let Some(message) = now.as_ref().filter(|_| now != told) {
            output::note(&format!("{project} waits: {message}"));
        }
        told = now.or(told);
    }
}
