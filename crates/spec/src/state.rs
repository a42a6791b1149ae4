use std::fmt;

use serde::{Deserialize, Serialize};

/// What a request to an agent does with a project that is not running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPolicy {
    /// Starts it, or resumes it when it is paused.
    Start,
    /// Says so.
    Never,
}

/// Where a project stands. The store keeps it; [`ProjectState::after`] is the only way it changes.
///
/// ```text
///            create            start            ready            pause             rests
///  (nothing) -----> creating     +--> starting ------> running <------> pausing -------> paused
///                      | made    |       | failed         |  ^   failed                  |  ^
///                      v         |       v                |  | ready             resume  v  | failed
///                   stopped -----+    stopped             |  +------------------------ resuming
///                      | remove          ^                | stop, or its init ends; from the other three too
///                      v                 |     gone       v
///                   removing             +------------ stopping
///                      |
///                      v
///                  (nothing)
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
    /// Its sandbox is being brought to rest; a crash here undoes it.
    Pausing,
    /// Its sandbox is there and nothing in it runs.
    Paused,
    /// Its sandbox is being woken; a crash here finishes it.
    Resuming,
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
    /// The sandbox could not be made, brought to rest or woken.
    Failed,
    /// Someone wants it at rest.
    Pause,
    /// Nothing in it runs.
    Rests,
    /// Someone wants it awake.
    Resume,
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
        use ProjectState::{Creating, Paused, Pausing, Removing, Resuming, Running, Starting, Stopped, Stopping};
        use Transition::{Failed, Gone, Made, Pause, Ready, Remove, Rests, Resume, Start, Stop};
        match (self, transition) {
            (Creating, Made) | (Starting, Failed) | (Stopping, Gone) => Ok(Stopped),
            (Stopped, Start) => Ok(Starting),
            (Starting | Resuming, Ready) | (Pausing, Failed) => Ok(Running),
            (Running, Pause) => Ok(Pausing),
            (Pausing, Rests) | (Resuming, Failed) => Ok(Paused),
            (Paused, Resume) => Ok(Resuming),
            (Running | Pausing | Paused | Resuming, Stop) => Ok(Stopping),
            (Creating | Stopped, Remove) => Ok(Removing),
            (state, transition) => Err(TransitionRefused { state, transition }),
        }
    }

    /// Whether there is a whole sandbox, running or at rest.
    pub fn has_sandbox(self) -> bool {
        match self {
            Self::Running | Self::Pausing | Self::Paused | Self::Resuming => true,
            Self::Creating | Self::Stopped | Self::Starting | Self::Stopping | Self::Removing => false,
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
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
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
            Self::Failed => "fail at what is done to it",
            Self::Pause => "be paused",
            Self::Rests => "be at rest",
            Self::Resume => "be resumed",
            Self::Stop => "be stopped",
            Self::Gone => "be gone",
            Self::Remove => "be removed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [ProjectState; 9] = [
        ProjectState::Creating,
        ProjectState::Stopped,
        ProjectState::Starting,
        ProjectState::Running,
        ProjectState::Pausing,
        ProjectState::Paused,
        ProjectState::Resuming,
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
            Transition::Failed,
            Transition::Pause,
            Transition::Rests,
            Transition::Resume,
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

    #[test]
    fn only_a_running_project_is_paused_and_only_a_paused_one_resumed() {
        for state in STATES {
            assert_eq!(state.after(Transition::Pause).is_ok(), state == ProjectState::Running, "{state}");
            assert_eq!(state.after(Transition::Resume).is_ok(), state == ProjectState::Paused, "{state}");
        }
    }

    #[test]
    fn whatever_has_a_sandbox_can_be_stopped() {
        for state in STATES {
            assert_eq!(state.after(Transition::Stop).is_ok(), state.has_sandbox(), "{state}");
        }
    }
}
