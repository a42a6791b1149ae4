//! What the crates below say, in the engine's kinds.

use crate::error::{Error, ErrorKind};

/// Turns an error of a crate below into one of the engine's, with its hint.
pub(super) trait Explain<T> {
    fn explain(self) -> Result<T, Error>;
}

impl<T> Explain<T> for Result<T, garth_storage::Error> {
    fn explain(self) -> Result<T, Error> {
        use garth_storage::ErrorKind as Kind;
        self.map_err(|error| {
            let kind = match *error.kind() {
                Kind::NoSpace => ErrorKind::NoSpace,
                Kind::LimitBelowUse { limit, .. } => ErrorKind::LimitRefused { what: "disk", limit: limit.to_string() },
                Kind::DiskMissing(project) => ErrorKind::DiskMissing(project),
                _ => ErrorKind::Storage,
            };
            let (step, hint) = (error.step(), error.hint());
            Error::because(kind, error).step(step).maybe_hint(hint)
        })
    }
}

impl<T> Explain<T> for Result<T, garth_image::Error> {
    fn explain(self) -> Result<T, Error> {
        use garth_image::ErrorKind as Kind;
        self.map_err(|error| {
            let kind = match error.kind() {
                Kind::NoSpace => ErrorKind::NoSpace,
                Kind::Storage => ErrorKind::Storage,
                _ => ErrorKind::Image,
            };
            let hint = error.hint().map(str::to_owned);
            Error::because(kind, error).maybe_hint(hint)
        })
    }
}

impl<T> Explain<T> for Result<T, garth_vm::Error> {
    fn explain(self) -> Result<T, Error> {
        use garth_vm::ErrorKind as Kind;
        self.map_err(|error| {
            let kind = match error.kind() {
                Kind::NoSpace => ErrorKind::NoSpace,
                Kind::Snapshot(_) => ErrorKind::Memory,
                _ => ErrorKind::Machine,
            };
            let hint = error.hint().map(str::to_owned);
            Error::because(kind, error).maybe_hint(hint)
        })
    }
}

impl<T> Explain<T> for Result<T, garth_network::Error> {
    fn explain(self) -> Result<T, Error> {
        self.map_err(|error| {
            let hint = error.hint().map(str::to_owned);
            Error::because(ErrorKind::Network, error).maybe_hint(hint)
        })
    }
}

impl<T> Explain<T> for Result<T, garth_runtime::Error> {
    fn explain(self) -> Result<T, Error> {
        use garth_runtime::ErrorKind as Kind;
        self.map_err(|error| {
            let (kind, hint) = match &error.kind {
                Kind::Stuck { .. } => (ErrorKind::Stop, Some("try again; if it stays, the kernel's log says why")),
                Kind::NoCgroups { .. } | Kind::Spawner => {
                    (ErrorKind::Start, Some("`garth doctor` says what is missing"))
                }
                Kind::InUse => (ErrorKind::InUse, None),
                Kind::Volume { .. } => (ErrorKind::Volume, None),
                Kind::Restless { .. } => (ErrorKind::Pause, Some("it runs on; try again, or stop it")),
                Kind::NoFreezer => (ErrorKind::Pause, Some("mount one: mount -t cgroup2 none /sys/fs/cgroup/unified")),
                Kind::OciRuntime { .. } => {
                    (ErrorKind::Start, Some("`garth doctor` looks at Sysbox; its daemons' logs say more"))
                }
                Kind::SocketPath(_) => (ErrorKind::Start, Some("use a shorter --data-dir")),
                _ => (ErrorKind::Start, None),
            };
            let step = match &error.kind {
                Kind::Step { step, .. } => step.clone(),
                _ => error.doing.clone(),
            };
            Error::because(kind, error).step(step).maybe_hint(hint.map(str::to_owned))
        })
    }
}
