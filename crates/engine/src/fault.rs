//! Steps at which a test can kill the daemon.
//!
//! A name in the environment variable `GARTH_FAULT` aborts the process when that step is reached, as
//! `kill -9` would: nothing is unwound, nothing is flushed. Builds without the feature `fault` hold
//! the names and nothing else.

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A step of an operation that has just been done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Point { $($(#[$doc])* $point,)* }

        /// The name of every step at which a daemon built with the feature `fault` can be killed.
        pub const FAULT_POINTS: &[&str] = &[$($name),*];

        impl Point {
            #[cfg(any(test, feature = "fault"))]
            const fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)* }
            }
        }
    };
}

points! {
    /// The name is taken, nothing is made.
    CreateRecorded = "create.recorded",
    /// The disk exists.
    CreateDiskMade = "create.disk_made",
    /// The project is there; no one was told.
    CreateCommitted = "create.committed",
    /// A start is decided; the store does not know.
    StartBegun = "start.begun",
    /// The sandbox has its addresses.
    StartLeased = "start.leased",
    /// The sandbox runs and the store does not know.
    StartStarted = "start.started",
    /// The store knows; no one was told.
    StartCommitted = "start.committed",
    /// A start went wrong and has not been undone.
    StartFailed = "start.failed",
    /// The store says pausing.
    PauseRecorded = "pause.recorded",
    /// Nothing in the sandbox runs.
    PauseRested = "pause.rested",
    /// The store says paused; no one was told.
    PauseCommitted = "pause.committed",
    /// The store says resuming.
    ResumeRecorded = "resume.recorded",
    /// The sandbox runs again.
    ResumeWoken = "resume.woken",
    /// The store says running; no one was told.
    ResumeCommitted = "resume.committed",
    /// The store says stopping.
    StopRecorded = "stop.recorded",
    /// The agent has ended all processes.
    StopAsked = "stop.asked",
    /// The sandbox is gone, its addresses are not.
    StopDestroyed = "stop.destroyed",
    /// The addresses are given back too.
    StopReleased = "stop.released",
    /// The store says stopped; no one was told.
    StopCommitted = "stop.committed",
    /// The store says removing.
    RemoveRecorded = "remove.recorded",
    /// The disk is gone.
    RemoveDiskGone = "remove.disk_gone",
    /// The store has forgotten it; no one was told.
    RemoveCommitted = "remove.committed",
    /// The disk has its new limit.
    ChangeDiskLimited = "change.disk_limited",
    /// The sandbox has its new limits.
    ChangeSandboxLimited = "change.sandbox_limited",
    /// The store has the new spec; no one was told.
    ChangeCommitted = "change.committed",
    /// The image's files are in the pool and the store does not know.
    ImportFilled = "import.filled",
    /// The store knows; no one was told.
    ImportCommitted = "import.committed",
    /// The store has forgotten the image, its files are there.
    ForgetRecorded = "forget.recorded",
    /// The image's files are gone; no one was told.
    ForgetRemoved = "forget.removed",
    /// The store is open, nothing was looked at.
    ReconcileOpened = "reconcile.opened",
    /// Sandboxes that no one knows are gone.
    ReconcileSwept = "reconcile.swept",
    /// Every project's state is true; disks were not looked at.
    ReconcileSettled = "reconcile.settled",
    /// Disks and images that no one knows are gone.
    ReconcileCleaned = "reconcile.cleaned",
}

/// Dies here if this step is the one that the environment names.
#[cfg(any(test, feature = "fault"))]
pub(crate) fn reach(point: Point) {
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("GARTH_FAULT").ok());
    if wanted.as_deref() == Some(point.name()) {
        std::process::abort();
    }
}

/// Nothing, in a build that nobody tests.
#[cfg(not(any(test, feature = "fault")))]
pub(crate) const fn reach(_point: Point) {}
