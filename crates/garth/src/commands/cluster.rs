mod pools;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use garth_cluster::install::{self, Install};
use serde_json::Value;

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output;
use pools::PoolOptions;

#[derive(Debug, Args)]
pub struct Cluster {
    #[command(subcommand)]
    pub what: What,
}

/// What a cluster needs.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Print the definitions of Garth's resources, for `kubectl apply -f -`
    Crds,
    /// Print all that Garth needs on a cluster, for `kubectl apply -f -`
    Manifests(Box<Manifests>),
    /// Write the image of operator, gateway and agents as a docker archive
    Image(Image),
}

#[derive(Debug, Args)]
pub struct Manifests {
    /// Namespace of the operator and the gateway
    #[arg(long, value_name = "NAME", default_value = "garth")]
    pub namespace: String,
    /// Namespace of the projects
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub projects: String,
    /// Image of operator, gateway and agents (`garth cluster image` makes it)
    #[arg(long, value_name = "IMAGE", default_value = "garth:latest")]
    pub image: String,
    /// Image of projects that name none
    #[arg(long, value_name = "IMAGE", default_value = "debian:12")]
    pub default_image: String,
    /// Secret of the type kubernetes.io/tls in that namespace, by which the gateway encrypts; without it, it does not
    #[arg(long, value_name = "NAME")]
    pub tls_secret: Option<String>,
    /// Print a PodMonitor and a PrometheusRule, too, for the Prometheus operator
    #[arg(long)]
    pub prometheus_rules: bool,
    #[command(flatten)]
    pub pools: PoolOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The image begins from nothing: it holds this program and the agent. This program must be static for
that: RUSTFLAGS='-C target-feature=+crt-static' cargo build --release -p garth \\
  --target x86_64-unknown-linux-gnu")]
pub struct Image {
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Name of the image
    #[arg(long, value_name = "NAME", default_value = "garth:latest")]
    pub name: String,
    /// Leave this program out: an image for agents alone
    #[arg(long)]
    pub agent_only: bool,
}

pub fn run(args: Cluster) -> Result<u8> {
    match args.what {
        What::Crds => print(install::crds()),
        What::Manifests(args) => manifests(*args),
        What::Image(args) => image(&args),
    }
}

fn manifests(args: Manifests) -> Result<u8> {
    let Manifests { namespace, projects, image, default_image, tls_secret, prometheus_rules, pools } = args;
    let file = pools.node_groups.clone();
    let pools = pools.chosen(&namespace)?;
    let install = Install { namespace, projects, image, default_image, tls_secret };
    let mut objects = install::objects(&install);
    if let (true, Ok(objects)) = (prometheus_rules, &mut objects) {
        objects.extend(install::monitoring(&install));
    }
    if let (Some(pools), Ok(objects)) = (pools, &mut objects) {
        let made = install::pools::pools(&pools);
        objects.extend(made.objects);
        match (made.groups, file) {
            (Some(groups), Some(file)) => {
                let written = std::fs::write(&file, yaml(&[groups])?);
                written.map_err(|error| Failure::io(format!("cannot write {}", file.display()), &error))?;
            }
            (groups, _) => objects.extend(groups),
        }
    }
    print(objects)
}

fn print(objects: std::result::Result<Vec<Value>, serde_json::Error>) -> Result<u8> {
    output::print(&yaml(&objects.map_err(|error| ours(&error))?)?).map(|()| 0)
}

fn yaml(objects: &[Value]) -> Result<String> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(object).map_err(|error| ours(&error))?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

fn ours(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, "internal", format!("cannot write an object: {error}"))
}

fn image(args: &Image) -> Result<u8> {
    let failed = |error: &io::Error| Failure::io(format!("cannot write {}", args.output.display()), error);
    let program = match args.agent_only {
        true => None,
        false => Some(own_program()?),
    };
    let mut files = vec![("garth-agent", garth_agent_binary::AGENT)];
    files.extend(program.as_deref().map(|program| (install::PROGRAM.trim_start_matches('/'), program)));
    let archive = install::image(&args.name, &files).map_err(|error| failed(&error))?;
    let mut file = File::create(&args.output).map_err(|error| failed(&error))?;
    file.write_all(&archive).and_then(|()| file.sync_all()).map_err(|error| failed(&error))?;
    Ok(0)
}

/// This program, if it runs where nothing else is.
fn own_program() -> Result<Vec<u8>> {
    let program = std::fs::read("/proc/self/exe").map_err(|error| Failure::io("cannot read this program", &error))?;
    if install::needs_loader(&program) {
        return Err(Failure::new(
            Exit::Unavailable,
            "not_static",
            "this program needs a dynamic loader, which the image has not",
        )
        .hint("build a static one (`garth help cluster image`), or leave it out with --agent-only"));
    }
    Ok(program)
}
