use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a project stands. The store keeps it; [`ProjectState::after`] is the only way it changes.
///
/// ```text
///            create            start            ready
///  (nothing) -----> creating     +--> starting ------> running
///                      | made    |       | failed         | stop, or its init ends
///                      v         |       v                v
///                   stopped -----+    stopped <------- stopping
///                      | remove                 gone
///                      v
///                   removing ----> (nothing)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ProjectState {
    /// Its disk is being made; a crash here undoes it.
    Creating,
    /// It has a disk and no sandbox.
    Stopped,
    /// Its sandbox is being made; a crash here ends it.
    Starting,
    /// Its sandbox answers.
    Running,
    /// Its sandbox is being ended.
    Stopping,
    /// Its disk is being deleted; a crash here finishes it.
    Removing,
}

/// What moves a project from one state to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// The disk stands.
    Made,
    /// Someone wants it running.
    Start,
    /// The agent answers.
    Ready,
    /// The sandbox could not be made.
    Failed,
    /// Someone wants it stopped, or its init has ended.
    Stop,
    /// Nothing of the sandbox is left.
    Gone,
    /// Someone wants it deleted.
    Remove,
}

/// A transition that this state does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a project that is {state} cannot {transition}")]
pub struct TransitionRefused {
    /// Where the project stands.
    pub state: ProjectState,
    /// What was wanted.
    pub transition: Transition,
}

impl ProjectState {
    /// The state after a transition: the whole table, in one place.
    pub fn after(self, transition: Transition) -> Result<Self, TransitionRefused> {
        use ProjectState::{Creating, Removing, Running, Starting, Stopped, Stopping};
        use Transition::{Failed, Gone, Made, Ready, Remove, Start, Stop};
        match (self, transition) {
            (Creating, Made) | (Starting, Failed) | (Stopping, Gone) => Ok(Stopped),
            (Stopped, Start) => Ok(Starting),
            (Starting, Ready) => Ok(Running),
            (Running, Stop) => Ok(Stopping),
            (Creating | Stopped, Remove) => Ok(Removing),
            (state, transition) => Err(TransitionRefused { state, transition }),
        }
    }
}

impl fmt::Display for ProjectState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Removing => "removing",
        })
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "be finished",
            Self::Start => "be started",
            Self::Ready => "become ready",
            Self::Failed => "fail to start",
            Self::Stop => "be stopped",
            Self::Gone => "be gone",
            Self::Remove => "be removed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [ProjectState; 6] = [
        ProjectState::Creating,
        ProjectState::Stopped,
        ProjectState::Starting,
        ProjectState::Running,
        ProjectState::Stopping,
        ProjectState::Removing,
    ];

    #[test]
    fn a_running_project_cannot_be_removed_without_a_stop() {
        assert!(ProjectState::Running.after(Transition::Remove).is_err());
        assert!(ProjectState::Stopped.after(Transition::Remove).is_ok());
    }

    #[test]
    fn nothing_leaves_removing() {
        for transition in [
            Transition::Made,
            Transition::Start,
            Transition::Ready,
            Transition::Stop,
            Transition::Gone,
            Transition::Remove,
        ] {
            assert!(ProjectState::Removing.after(transition).is_err());
        }
    }

    #[test]
    fn only_a_stopped_project_starts() {
        for state in STATES {
            assert_eq!(state.after(Transition::Start).is_ok(), state == ProjectState::Stopped, "{state}");
        }
    }
}
