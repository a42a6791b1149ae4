//! Which node pools `garth cluster manifests` writes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use garth_cluster::install::pools::{Autoscaler, Groups, Karpenter, Machines, Pools};
use garth_spec::Runtime;

use crate::failure::{Failure, Result};

#[derive(Debug, Args)]
#[command(next_help_heading = "Node pools")]
pub struct PoolOptions {
    /// Print node pools for the runtimes, too, of a cluster of this provider
    #[arg(long, value_enum)]
    pub provider: Option<Provider>,
    /// What makes nodes when projects need them
    #[arg(long, value_enum)]
    pub autoscaler: Option<Kind>,
    /// Runtimes that get a pool each [default: default,sysbox,microvm]
    #[arg(long, value_name = "RUNTIME,…", value_delimiter = ',')]
    pub runtimes: Vec<Runtime>,
    /// Name of the cluster at its provider
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// Placeholders for each runtime: so many projects start without waiting for a node
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub spare: u32,
    /// IAM role of the nodes (karpenter)
    #[arg(long, value_name = "ROLE")]
    pub node_role: Option<String>,
    /// Version of the cluster, such as 1.34 (karpenter, sysbox)
    #[arg(long, value_name = "VERSION")]
    pub kubernetes_version: Option<String>,
    /// What microVMs run on (karpenter; cluster-autoscaler has metal alone) [default: nested]
    #[arg(long, value_enum)]
    pub microvm_machines: Option<MachineKind>,
    /// Processors of one pool at most (karpenter) [default: 256]
    #[arg(long, value_name = "COUNT")]
    pub max_cpus: Option<u32>,
    /// Region of the cluster (cluster-autoscaler)
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Zones that get a group each (cluster-autoscaler)
    #[arg(long, value_name = "ZONE,…", value_delimiter = ',')]
    pub zones: Vec<String>,
    /// Nodes of one group at most (cluster-autoscaler) [default: 10]
    #[arg(long, value_name = "COUNT")]
    pub max_nodes: Option<u32>,
    /// Write the node groups, which are for eksctl and not for kubectl, to this file (cluster-autoscaler)
    #[arg(long, value_name = "FILE")]
    pub node_groups: Option<PathBuf>,
}

/// Whose cluster it is.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Provider {
    /// Amazon EKS
    Eks,
}

/// An autoscaler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Karpenter: NodePools and EC2NodeClasses
    Karpenter,
    /// Cluster Autoscaler: managed node groups
    ClusterAutoscaler,
}

/// Machines with KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MachineKind {
    /// Virtual ones with nested virtualization (C8i, M8i, R8i)
    Nested,
    /// Whole ones
    Metal,
}

impl PoolOptions {
    /// The pools that are asked for, if any are.
    pub fn chosen(self, namespace: &str) -> Result<Option<Pools>> {
        let kind = match (self.provider, self.autoscaler) {
            (None, None) => return self.nothing().map(|()| None),
            (Some(Provider::Eks), Some(kind)) => kind,
            (Some(_), None) => {
                return Err(Failure::usage("--provider needs --autoscaler: karpenter or cluster-autoscaler"));
            }
            (None, Some(_)) => return Err(Failure::usage("--autoscaler needs --provider: eks")),
        };
        let asks = format!("--autoscaler {}", if kind == Kind::Karpenter { "karpenter" } else { "cluster-autoscaler" });
        self.fits(kind, &asks)?;
        let cluster = needed(self.cluster_name, &asks, "--cluster-name: the name of the cluster on EKS")?;
        let mut runtimes = if self.runtimes.is_empty() { Runtime::ALL.to_vec() } else { self.runtimes };
        runtimes.sort_unstable();
        runtimes.dedup();
        let autoscaler = match kind {
            Kind::Karpenter => Autoscaler::Karpenter(Karpenter {
                role: needed(self.node_role, &asks, "--node-role: the IAM role that its nodes have")?,
                version: match runtimes.contains(&Runtime::Sysbox) {
                    true => version(self.kubernetes_version)?,
                    false => String::new(),
                },
                machines: match self.microvm_machines.unwrap_or(MachineKind::Nested) {
                    MachineKind::Nested => Machines::Nested,
                    MachineKind::Metal => Machines::Metal,
                },
                cpus: self.max_cpus.unwrap_or(256),
            }),
            Kind::ClusterAutoscaler => {
                if self.zones.is_empty() {
                    return Err(Failure::usage(format!("{asks} needs --zones: a group is made in each"))
                        .hint("a disk is in one zone, and a group over several may grow in another"));
                }
                Autoscaler::ClusterAutoscaler(Groups {
                    region: plain(needed(self.region, &asks, "--region: where the cluster is")?, "--region")?,
                    zones: self.zones.into_iter().map(|zone| plain(zone, "--zones")).collect::<Result<_>>()?,
                    nodes: self.max_nodes.unwrap_or(10),
                })
            }
        };
        Ok(Some(Pools {
            cluster: plain(cluster, "--cluster-name")?,
            runtimes,
            spare: self.spare,
            namespace: namespace.to_owned(),
            autoscaler,
        }))
    }

    /// Flags of pools without pools are a mistake.
    fn nothing(&self) -> Result<()> {
        let given = self.for_karpenter().into_iter().chain(self.for_groups()).flatten().next();
        let given = given.or(self.cluster_name.is_some().then_some("--cluster-name"));
        let given = given.or((!self.runtimes.is_empty()).then_some("--runtimes"));
        match given.or((self.spare > 0).then_some("--spare")) {
            Some(flag) => Err(Failure::usage(format!("{flag} is about node pools, and none are asked for"))
                .hint("add --provider eks --autoscaler karpenter, or cluster-autoscaler")),
            None => Ok(()),
        }
    }

    /// Flags of the other autoscaler are a mistake, too.
    fn fits(&self, kind: Kind, asks: &str) -> Result<()> {
        let foreign = match kind {
            Kind::Karpenter => self.for_groups().into_iter().flatten().next(),
            Kind::ClusterAutoscaler => self.for_karpenter().into_iter().flatten().next(),
        };
        match foreign {
            Some(flag) => Err(Failure::usage(format!("{asks} has no use for {flag}"))),
            None => Ok(()),
        }
    }

    fn for_karpenter(&self) -> [Option<&'static str>; 4] {
        [
            self.node_role.is_some().then_some("--node-role"),
            self.kubernetes_version.is_some().then_some("--kubernetes-version"),
            self.microvm_machines.is_some().then_some("--microvm-machines"),
            self.max_cpus.is_some().then_some("--max-cpus"),
        ]
    }

    fn for_groups(&self) -> [Option<&'static str>; 4] {
        [
            self.region.is_some().then_some("--region"),
            (!self.zones.is_empty()).then_some("--zones"),
            self.max_nodes.is_some().then_some("--max-nodes"),
            self.node_groups.is_some().then_some("--node-groups"),
        ]
    }
}

fn needed(value: Option<String>, asks: &str, what: &str) -> Result<String> {
    value.ok_or_else(|| Failure::usage(format!("{asks} needs {what}")))
}

/// Names end up in scripts and selectors.
fn plain(name: String, flag: &str) -> Result<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match !name.is_empty() && name.chars().all(fits) {
        true => Ok(name),
        false => Err(Failure::usage(format!("{flag} is made of letters, digits, '-' and '_', and {name:?} is not"))),
    }
}

fn version(version: Option<String>) -> Result<String> {
    let what = "--kubernetes-version: nodes with Sysbox have an image for each";
    let version = needed(version, "a pool for sysbox", what)?;
    let minor = version.strip_prefix("1.").and_then(|minor| minor.parse::<u8>().ok());
    match minor {
        Some(_) => Ok(version),
        None => Err(Failure::usage(format!("--kubernetes-version is such as 1.34, and {version:?} is not"))),
    }
}
