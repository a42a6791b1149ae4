//! Flags that several verbs share, and the values they take.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use garth_api::NewSpec;
use garth_spec::{
    ByteSize, Capabilities, Capability, CpuCount, ImageName, Limits, Network, ProjectName, ProjectSpec, Runtime,
    RuntimeChoice, Volume,
};

use crate::complete;
use crate::duration;

/// A project that exists, by name; completed from the live ones.
#[derive(Debug, Clone, Args)]
pub struct OneProject {
    /// The project
    #[arg(value_name = "NAME", add = complete::projects())]
    pub name: ProjectName,
}

/// Projects that exist, by name.
#[derive(Debug, Clone, Args)]
pub struct SomeProjects {
    /// The projects
    #[arg(value_name = "NAME", required = true, add = complete::projects())]
    pub names: Vec<ProjectName>,
}

/// What a new project is asked to be.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "The project")]
pub struct SpecOptions {
    /// Image that the disk begins as [default: host, this machine's own /usr]
    #[arg(long, add = complete::images())]
    pub image: Option<ImageName>,
    /// How it is isolated: default, sysbox or microvm; by one handler alone: sysbox/sysbox-runc, … [default: default]
    #[arg(long)]
    pub runtime: Option<RuntimeChoice>,
    /// Weakest runtime that it may ever have: default, sysbox or microvm; without --runtime it gets this one, or where
    /// that does not work here the next stronger one that does
    #[arg(long, value_name = "LEVEL")]
    pub at_least: Option<Runtime>,
    #[command(flatten)]
    pub limits: LimitOptions,
    /// What it can reach: internet (public addresses only) or none [default: internet]
    #[arg(long)]
    pub network: Option<Network>,
    /// Program of the image that is process 1, such as /sbin/init for systemd (runtimes sysbox and microvm)
    #[arg(long, value_name = "PATH")]
    pub init: Option<String>,
    /// Keep sudo and other set-user-id programs from gaining anything
    #[arg(long)]
    pub no_new_privs: bool,
    /// Make its root read-only, but for /tmp, /run, /dev/shm and volumes
    #[arg(long)]
    pub read_only: bool,
    #[command(flatten)]
    pub capabilities: CapabilityOptions,
    #[command(flatten)]
    pub volumes: VolumeOptions,
    /// Label for your own bookkeeping; can be given again
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
}

/// Which of its level's capabilities processes can have.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct CapabilityOptions {
    /// Capability that no process can have, or ALL; can be given again
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<Capability>,
    /// Capability of the runtime's that processes can have all the same; can be given again
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<Capability>,
}

impl CapabilityOptions {
    /// What is asked for, if anything is.
    pub fn given(&self) -> Option<Capabilities> {
        let (drop, add) = (self.cap_drop.iter().copied().collect(), self.cap_add.iter().copied().collect());
        let given = Capabilities { drop, add };
        (!given.are_the_levels()).then_some(given)
    }
}

/// Directories of the host.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct VolumeOptions {
    /// Directory of the host to show at a path, with its owners; :ro for reading only; can be given again. Needs root
    #[arg(long = "volume", short = 'v', value_name = "HOST_DIR:PATH[:ro]")]
    pub volumes: Vec<VolumeOption>,
}

/// Limits, each left as it is when not given.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct LimitOptions {
    /// Memory, swap included: 512MiB, 1.5GiB, … [default: 2GiB]
    #[arg(long, short, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Processors: 2, 0.5, … [default: 2]
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<CpuCount>,
    /// Disk [default: 10GiB]
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<ByteSize>,
    /// Processes and threads [default: 4096]
    #[arg(long, value_name = "NUMBER")]
    pub pids: Option<u32>,
    #[command(flatten)]
    pub rates: RateOptions,
}

/// What it may read, write, send and receive a second, each left as it is when not given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Args)]
pub struct RateOptions {
    /// Bytes a second from its disk, and as many to it: 50MiB, …; or none [default: none]
    #[arg(long, value_name = "SIZE")]
    pub disk_rate: Option<Rate<ByteSize>>,
    /// Reads of its disk a second, and as many writes; or none [default: none]
    #[arg(long, value_name = "NUMBER")]
    pub disk_iops: Option<Rate<u32>>,
    /// Bytes a second from the network, and as many to it: 10MB, …; or none [default: none]
    #[arg(long, value_name = "SIZE")]
    pub network_rate: Option<Rate<ByteSize>>,
}

/// A number a second, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate<T>(pub Option<T>);

impl<T: FromStr> FromStr for Rate<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        match text {
            "none" => Ok(Self(None)),
            number => number.parse().map(|number| Self(Some(number))),
        }
    }
}

/// How a process runs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The process")]
pub struct ProcessOptions {
    /// Pass standard input on
    #[arg(long, short)]
    pub interactive: bool,
    /// Give it a terminal; also when standard output is none
    #[arg(long, short, conflicts_with = "no_tty")]
    pub tty: bool,
    /// Give it no terminal, whatever there is here
    #[arg(long)]
    pub no_tty: bool,
    /// Leave it running and print its id; with -i or -t, attach gives it input later
    #[arg(long, short)]
    pub detach: bool,
    #[command(flatten)]
    pub place: PlaceOptions,
    /// End it and all it started after this time: 500ms, 30s, 1.5h; exit code 124
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
}

/// As whom, where and with what environment.
#[derive(Debug, Clone, Default, Args)]
pub struct PlaceOptions {
    /// Environment variable; NAME alone takes the value from here; can be given again
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub env: Vec<EnvOption>,
    /// Working directory
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User: a name or number, optionally with :group
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
}

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub key: String,
    pub value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            _ => Err("write KEY=VALUE".to_owned()),
        }
    }
}

/// `HOST_DIR:PATH[:ro]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeOption {
    pub path: String,
    pub volume: Volume,
}

impl FromStr for VolumeOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, read_only) = match text.strip_suffix(":ro") {
            Some(text) => (text, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), false),
        };
        match text.rsplit_once(":/") {
            Some((host, path)) if host.starts_with('/') => {
                Ok(Self { path: format!("/{path}"), volume: Volume { host: host.to_owned(), read_only } })
            }
            _ => Err("write HOST_DIR:PATH or HOST_DIR:PATH:ro, both with '/' in front".to_owned()),
        }
    }
}

/// `NAME=VALUE`, or `NAME` for the value it has here (none: the variable is left out).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvOption {
    pub name: String,
    pub value: Option<String>,
}

impl FromStr for EnvOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, std::env::var(text).ok()),
        };
        if name.is_empty() {
            return Err("write NAME=VALUE, or NAME for the value it has here".to_owned());
        }
        Ok(Self { name: name.to_owned(), value })
    }
}

impl LimitOptions {
    /// The limits with what was given in place of what was not.
    pub fn over(&self, base: Limits) -> Limits {
        Limits {
            memory: self.memory.unwrap_or(base.memory),
            cpus: self.cpus.unwrap_or(base.cpus),
            pids: self.pids.unwrap_or(base.pids),
            disk: self.disk.unwrap_or(base.disk),
            disk_rate: self.rates.disk_rate.map_or(base.disk_rate, |rate| rate.0),
            disk_iops: self.rates.disk_iops.map_or(base.disk_iops, |rate| rate.0),
            network_rate: self.rates.network_rate.map_or(base.network_rate, |rate| rate.0),
        }
    }
}

impl SpecOptions {
    /// The spec with what was given in place of what was not.
    pub fn over(&self, base: &ProjectSpec) -> ProjectSpec {
        let mut spec = base.clone();
        if let Some(image) = &self.image {
            spec.image = image.clone();
        }
        spec.at_least = self.at_least.max(spec.at_least);
        let least = self.at_least.filter(|least| spec.runtime.runtime() < *least);
        spec.runtime = self.runtime.or(least.map(RuntimeChoice::from)).unwrap_or(spec.runtime);
        spec.limits = self.limits.over(spec.limits);
        spec.network = self.network.unwrap_or(spec.network);
        spec.init = self.init.clone().or(spec.init);
        spec.no_new_privs |= self.no_new_privs;
        spec.read_only |= self.read_only;
        spec.capabilities = self.capabilities.given().unwrap_or(spec.capabilities);
        spec.volumes.extend(self.volumes.volumes.iter().map(|option| (option.path.clone(), option.volume.clone())));
        spec.labels.extend(self.labels.iter().map(|label| (label.key.clone(), label.value.clone())));
        spec
    }

    /// The spec of a new project.
    pub fn spec(&self, place: &PlaceOptions) -> NewSpec {
        let spec = ProjectSpec {
            env: place.variables().collect(),
            user: place.user.clone(),
            workdir: place.workdir.clone(),
            ..self.over(&ProjectSpec::default())
        };
        match (self.runtime, self.at_least) {
            (None, Some(least)) => NewSpec::AtLeast(least, spec),
            _ => NewSpec::Whole(spec),
        }
    }
}

impl PlaceOptions {
    /// The variables that have a value.
    pub fn variables(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.env.iter().filter_map(|env| Some((env.name.clone(), env.value.clone()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_is_given_or_taken_from_here() {
        let given = |text: &str| text.parse::<EnvOption>().map(|env| (env.name, env.value));
        assert_eq!(given("A=b=c"), Ok(("A".into(), Some("b=c".into()))));
        assert_eq!(given("A="), Ok(("A".into(), Some(String::new()))));
        assert_eq!(given("GARTH_NO_SUCH"), Ok(("GARTH_NO_SUCH".into(), None)));
        assert!(given("=x").is_err());
    }

    #[test]
    fn a_volume_is_two_absolute_paths() {
        let given = |text: &str| text.parse::<VolumeOption>().map(|v| (v.volume.host, v.path, v.volume.read_only));
        assert_eq!(given("/a:b:/c"), Ok(("/a:b".into(), "/c".into(), false)));
        assert_eq!(given("/a:/c:ro"), Ok(("/a".into(), "/c".into(), true)));
        assert_eq!(given("/a:/c:rw"), Ok(("/a".into(), "/c".into(), false)));
        for text in ["", "/a", "a:/c", "/a:c", ":/c"] {
            assert!(given(text).is_err(), "{text}");
        }
    }

    #[test]
    fn at_least_is_the_runtime_where_none_is_given() {
        let spec = |runtime: Option<Runtime>, at_least| {
            let runtime = runtime.map(RuntimeChoice::from);
            let spec = SpecOptions { runtime, at_least, ..SpecOptions::default() }.over(&ProjectSpec::default());
            (spec.runtime.runtime(), spec.at_least)
        };
        use Runtime::{Default, Microvm, Sysbox};
        assert_eq!(spec(None, None), (Default, None));
        assert_eq!(spec(None, Some(Sysbox)), (Sysbox, Some(Sysbox)));
        assert_eq!(spec(Some(Microvm), Some(Sysbox)), (Microvm, Some(Sysbox)));
        // Refused by the daemon.
        assert_eq!(spec(Some(Default), Some(Sysbox)), (Default, Some(Sysbox)));
    }

    #[test]
    fn at_least_alone_leaves_the_runtime_of_a_new_project_open() {
        let place = PlaceOptions::default();
        let least = SpecOptions { at_least: Some(Runtime::Sysbox), ..SpecOptions::default() };
        assert!(matches!(least.spec(&place), NewSpec::AtLeast(Runtime::Sysbox, _)));
        let named = SpecOptions { runtime: Some(Runtime::Default.into()), ..least };
        assert!(matches!(named.spec(&place), NewSpec::Whole(_)));
    }

    #[test]
    fn a_rate_is_a_number_or_none() {
        assert_eq!("none".parse(), Ok(Rate::<u32>(None)));
        assert_eq!("1MiB".parse(), Ok(Rate(Some(ByteSize::mib(1)))));
        assert!("nothing".parse::<Rate<u32>>().is_err());
        let base = Limits { disk_iops: Some(50), network_rate: Some(ByteSize::mib(1)), ..Limits::default() };
        let rates = RateOptions { network_rate: Some(Rate(None)), ..RateOptions::default() };
        let options = LimitOptions { rates, ..LimitOptions::default() };
        assert_eq!(options.over(base), Limits { network_rate: None, ..base });
    }

    #[test]
    fn what_was_not_given_stays() {
        let options = SpecOptions { network: Some(Network::None), ..SpecOptions::default() };
        let base = ProjectSpec { no_new_privs: true, ..ProjectSpec::default() };
        assert_eq!(options.over(&base), ProjectSpec { network: Network::None, ..base });
    }
}
