//! From what a project asks for to what the runtime is told. Pure.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use garth_runtime::{Access, Durability, Overlay, Root, SandboxPlan};
use garth_spec::{AgentConfig, ProjectId, Volume};
use garth_storage::Disk;
use sha2::{Digest as _, Sha256};

use crate::images::ImageFormat;
use crate::local::Order;
use crate::project::Project;

/// Debian's address for a host's own name where it has no other (RFC 1122: any of 127/8 is loopback).
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));

/// The plan of a sandbox.
pub(super) fn plan(order: &Order<'_>, disk: &Disk, data_dir: &Path, capabilities: Option<u64>) -> SandboxPlan {
    let project = order.project;
    let address = own_address(order);
    let root = disk.root();
    SandboxPlan {
        machine: machine(project.id),
        hostname: project.name.to_string(),
        root: match &root.root {
            garth_storage::Root::Directory(path) => Root::Directory(path.clone()),
            garth_storage::Root::Overlay { lower, upper, work } => {
                Root::Overlay(Overlay { lower: lower.clone(), upper: upper.clone(), work: work.clone() })
            }
        },
        usr: root.usr.as_ref().map(|usr| Overlay {
            lower: usr.lower.clone(),
            upper: usr.upper.clone(),
            work: usr.work.clone(),
        }),
        state_dir: disk.state_dir(),
        volumes: project.spec.volumes.iter().map(|(at, volume)| volume_at(at, volume)).collect(),
        hidden: data_dir.to_owned(),
        access: if project.spec.read_only { Access::Read } else { Access::Write },
        capabilities,
        limits: project.spec.limits,
        resolv_conf: order.lease.resolv_conf.clone(),
        hosts: vec![(address, project.name.to_string())],
        agent: agent(project),
        durability: if project.ephemeral { Durability::Discarded } else { Durability::Kept },
    }
}

/// Where a project finds itself by its name.
pub(super) fn own_address(order: &Order<'_>) -> IpAddr {
    order.lease.addresses.map_or(OWN, |addresses| addresses.ipv4.into())
}

pub(super) fn volume_at(at: &str, volume: &Volume) -> garth_runtime::Volume {
    garth_runtime::Volume { host: (&volume.host).into(), at: at.to_owned(), read_only: volume.read_only }
}

/// A machine's id that a project has for ever and no other has: RFC 9562, version 8.
pub(super) fn machine(project: ProjectId) -> [u8; 16] {
    let digest = Sha256::digest(format!("garth project {project}"));
    let mut id: [u8; 16] = std::array::from_fn(|at| digest[at]);
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

pub(super) fn agent(project: &Project) -> AgentConfig {
    let (spec, image) = (&project.spec, &project.image_config);
    let pairs = image.env.iter().filter_map(|entry| entry.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let own = spec.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let defaults = AgentConfig::default();
    AgentConfig {
        env: pairs.chain(own).collect(),
        user: filled(&spec.user).or_else(|| filled(&image.user)).unwrap_or(defaults.user),
        workdir: filled(&spec.workdir).or_else(|| filled(&image.workdir)),
        init: spec.init.clone(),
        no_new_privs: spec.no_new_privs,
        output_ring: defaults.output_ring,
        suspend_after_seconds: None,
    }
}

/// The importer's word for a format.
pub(super) fn format(format: ImageFormat) -> garth_image::Format {
    match format {
        ImageFormat::Auto => garth_image::Format::Auto,
        ImageFormat::Tar => garth_image::Format::Tar,
        ImageFormat::DockerArchive => garth_image::Format::DockerArchive,
        ImageFormat::OciLayout => garth_image::Format::OciLayout,
    }
}

#[cfg(test)]
mod tests {
    use garth_spec::{ImageConfig, ProjectSpec, ProjectState};

    use super::*;

    fn project(spec: ProjectSpec, image_config: ImageConfig) -> Project {
        Project {
            id: ProjectId::from_bits(0),
            name: "web".parse().expect("name"),
            state: ProjectState::Stopped,
            ephemeral: false,
            spec,
            image: None,
            image_config,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            started_at: None,
            ended: None,
            verified: None,
            sandbox: None,
        }
    }

    #[test]
    fn the_project_has_the_last_word_over_its_image() {
        let image = ImageConfig {
            env: vec!["A=image".to_owned(), "B=b=c".to_owned(), "not a pair".to_owned()],
            user: Some("www".to_owned()),
            workdir: Some("/srv".to_owned()),
            ..ImageConfig::default()
        };
        let spec = ProjectSpec {
            env: [("A".to_owned(), "project".to_owned())].into(),
            user: Some("root".to_owned()),
            ..ProjectSpec::default()
        };
        let config = agent(&project(spec, image));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(config.env, [pair("A", "image"), pair("B", "b=c"), pair("A", "project")]);
        assert_eq!((config.user.as_str(), config.workdir.as_deref()), ("root", Some("/srv")));
    }

    #[test]
    fn an_image_that_names_no_user_means_root() {
        let image = ImageConfig { user: Some(String::new()), ..ImageConfig::default() };
        assert_eq!(agent(&project(ProjectSpec::default(), image)).user, "root");
    }
}
