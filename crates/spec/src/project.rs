use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::volume::{MOST_VOLUMES, wrong_path, wrong_place};
use crate::{Capabilities, Handler, ImageName, InvalidLimit, Limits, Network, Runtime, RuntimeChoice, Volume};

/// What a user asks of a project. Everything but the image can be changed later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ProjectSpec {
    /// The image the disk begins as.
    pub image: ImageName,
    /// How the sandbox is isolated, and what carries that out if it matters.
    pub runtime: RuntimeChoice,
    /// The weakest runtime that it may ever have. A new project for which no runtime is named gets this one, or where it
    /// does not work the next stronger one that does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<Runtime>,
    /// What it may use at most.
    pub limits: Limits,
    /// What it can reach.
    pub network: Network,
    /// Environment for every process, over the image's own.
    pub env: BTreeMap<String, String>,
    /// The user processes run as when none is asked for: a name or a number, optionally `:group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The directory processes run in when none is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// A program of the image that is the sandbox's process 1, such as `/sbin/init`: only where users are mapped, which
    /// is what systemd needs. The agent is process 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Set-user-id programs (sudo, ping) gain nothing, as by prctl(PR_SET_NO_NEW_PRIVS).
    pub no_new_privs: bool,
    /// The root is read-only but for /tmp, /run and /dev/shm, which begin empty, and volumes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Which of its level's capabilities processes can have.
    #[serde(skip_serializing_if = "Capabilities::are_the_levels")]
    pub capabilities: Capabilities,
    /// Directories of the host, by where they are in the sandbox. Only the host's root may ask for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
    /// Key-value pairs for the user's own bookkeeping.
    pub labels: BTreeMap<String, String>,
}

impl Default for ProjectSpec {
    fn default() -> Self {
        Self {
            image: ImageName::host(),
            runtime: RuntimeChoice::default(),
            at_least: None,
            limits: Limits::default(),
            network: Network::default(),
            env: BTreeMap::new(),
            user: None,
            workdir: None,
            init: None,
            no_new_privs: false,
            read_only: false,
            capabilities: Capabilities::default(),
            volumes: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }
}

/// What can do all that our own code does.
const ALL: &str = "default/native, sysbox/native or microvm";
/// What can show a directory of the host.
const SHARING: &str = "default/native, sysbox/native, microvm/qemu or microvm/cloud-hypervisor";

/// A project spec that no sandbox could honour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// A limit is out of range.
    #[error(transparent)]
    Limit(#[from] InvalidLimit),
    /// An environment name is empty or holds `=` or NUL.
    #[error("{0:?} is not an environment variable's name: it is empty or holds '=' or a NUL")]
    EnvName(String),
    /// A value holds NUL, which no environment or path can.
    #[error("the value of {0} holds a NUL byte")]
    Nul(String),
    /// The working directory is not absolute.
    #[error("the working directory {0:?} does not start with '/'")]
    RelativeWorkdir(String),
    /// The init is not absolute.
    #[error("the init {0:?} does not start with '/'")]
    RelativeInit(String),
    /// No init of its own under the default runtime.
    #[error(
        "an init of its own ({0}) needs the runtime sysbox or microvm: under the default one no init can mount or make cgroups"
    )]
    InitNeedsRoot(String),
    /// A path of a volume that cannot be one.
    #[error("the path {path:?} of a volume {why}")]
    VolumePath {
        /// The path, of either side.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More volumes than a sandbox takes.
    #[error("a project has {MOST_VOLUMES} volumes at most")]
    ManyVolumes,
    /// What is to carry the runtime out cannot do this.
    #[error("{handler} has no {option}: that needs {instead}")]
    NotByHandler {
        /// What was asked for.
        option: &'static str,
        /// What cannot do it.
        handler: Handler,
        /// What can.
        instead: &'static str,
    },
}

impl ProjectSpec {
    /// Refuses a spec that could not be carried out.
    pub fn check(&self) -> Result<(), InvalidSpec> {
        self.limits.check()?;
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(InvalidSpec::EnvName(name.clone()));
            }
            if value.contains('\0') {
                return Err(InvalidSpec::Nul(name.clone()));
            }
        }
        for (what, value) in [("user", &self.user), ("workdir", &self.workdir)] {
            if value.as_ref().is_some_and(|v| v.contains('\0')) {
                return Err(InvalidSpec::Nul(what.to_owned()));
            }
        }
        match &self.init {
            Some(init) if init.contains('\0') => return Err(InvalidSpec::Nul("init".to_owned())),
            Some(init) if !init.starts_with('/') => return Err(InvalidSpec::RelativeInit(init.clone())),
            Some(init) if self.runtime.runtime() == Runtime::Default => {
                return Err(InvalidSpec::InitNeedsRoot(init.clone()));
            }
            _ => {}
        }
        self.check_volumes()?;
        self.check_choice()?;
        match &self.workdir {
            Some(dir) if !dir.starts_with('/') => Err(InvalidSpec::RelativeWorkdir(dir.clone())),
            _ => Ok(()),
        }
    }
}

impl ProjectSpec {
    /// Refuses what a handler cannot do: nothing that is asked for is left out in silence. A runtime's handlers differ, so
    /// that this is also asked of the one that a start takes.
    pub fn check_handler(&self, handler: Handler) -> Result<(), InvalidSpec> {
        let native = matches!(handler, Handler::DefaultNative | Handler::SysboxNative);
        let guest = handler.runtime() == Runtime::Microvm;
        let asked = [
            ("limit of its disk's rate", native || guest, self.limits.has_disk_rate(), ALL),
            // Firecracker has no device that could show one.
            ("volumes", native || guest && handler != Handler::MicrovmFirecracker, !self.volumes.is_empty(), SHARING),
            ("read-only root", native || guest, self.read_only, ALL),
            ("choice of capabilities", native || guest, !self.capabilities.are_the_levels(), ALL),
        ];
        match asked.into_iter().find(|(_, has, asked, _)| *asked && !has) {
            Some((option, .., instead)) => Err(InvalidSpec::NotByHandler { option, handler, instead }),
            None => Ok(()),
        }
    }

    /// That there is a handler that could do it, wherever it is installed.
    fn check_choice(&self) -> Result<(), InvalidSpec> {
        let checked = self.runtime.handlers().map(|handler| self.check_handler(handler));
        checked.reduce(|first, next| first.or_else(|error| next.map_err(|_| error))).unwrap_or(Ok(()))
    }

    fn check_volumes(&self) -> Result<(), InvalidSpec> {
        if self.volumes.len() > MOST_VOLUMES {
            return Err(InvalidSpec::ManyVolumes);
        }
        for (place, volume) in &self.volumes {
            for (path, wrong) in [(place, wrong_place(place)), (&volume.host, wrong_path(&volume.host))] {
                if let Some(why) = wrong {
                    return Err(InvalidSpec::VolumePath { path: path.clone(), why });
                }
            }
        }
        Ok(())
    }
}

/// What an image says of the processes to run in it (OCI image spec 1.1, `config`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ImageConfig {
    /// Environment, in the image's order, `NAME=value`.
    pub env: Vec<String>,
    /// Words before the command.
    pub entrypoint: Vec<String>,
    /// The command when the user gives none.
    pub cmd: Vec<String>,
    /// The user processes run as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The directory processes run in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The image's labels.
    pub labels: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_errors() {
        let error = serde_json::from_str::<ProjectSpec>(r#"{"netwrok": "none"}"#).expect_err("unknown field");
        assert!(error.to_string().contains("netwrok"));
    }

    #[test]
    fn a_spec_of_nothing_is_the_default() {
        assert_eq!(serde_json::from_str::<ProjectSpec>("{}").ok(), Some(ProjectSpec::default()));
    }

    #[test]
    fn what_a_handler_cannot_do_is_refused() {
        let volume = Volume { host: "/srv".to_owned(), read_only: true };
        let specs = [
            ProjectSpec { volumes: [("/data".to_owned(), volume)].into(), ..ProjectSpec::default() },
            ProjectSpec { read_only: true, ..ProjectSpec::default() },
            ProjectSpec {
                capabilities: Capabilities { drop: [crate::Capability::All].into(), ..Capabilities::default() },
                ..ProjectSpec::default()
            },
        ];
        for spec in specs {
            let refused = |choice: RuntimeChoice| match (ProjectSpec { runtime: choice, ..spec.clone() }).check() {
                Err(InvalidSpec::NotByHandler { handler, .. }) => Some(handler),
                other => {
                    assert_eq!(other, Ok(()));
                    None
                }
            };
            assert_eq!(refused(Runtime::Default.into()), None);
            assert_eq!(refused(Runtime::Sysbox.into()), None);
            assert_eq!(refused(Handler::SysboxRunc.into()), Some(Handler::SysboxRunc));
            assert_eq!(refused(Runtime::Microvm.into()), None);
            let shares = (!spec.volumes.is_empty()).then_some(Handler::MicrovmFirecracker);
            assert_eq!(refused(Handler::MicrovmFirecracker.into()), shares);
            // Where it is the only one that works, it is not taken for the one that could.
            assert!(spec.check_handler(Handler::SysboxRunc).is_err());
        }
    }

    #[test]
    fn env_that_no_process_could_get_is_refused() {
        let with = |name: &str, value: &str| ProjectSpec {
            env: [(name.to_owned(), value.to_owned())].into(),
            ..ProjectSpec::default()
        };
        assert!(with("A", "b=c").check().is_ok());
        assert!(with("", "x").check().is_err());
        assert!(with("A=B", "x").check().is_err());
        assert!(with("A", "\0").check().is_err());
    }
}
