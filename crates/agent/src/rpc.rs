//! The Connect services: each turns messages into calls of the parts that do the work, and results into messages.

#![expect(refining_impl_trait, reason = "handlers return plain messages; the generated traits allow views too")]

mod envd_filesystem;
mod envd_process;
mod follow;
mod processes;
mod sandbox;
mod user;

use std::sync::Arc;

use connectrpc::Chain;
use garth_protocol::agent::{ProcessesServer, SandboxServer};
use garth_protocol::filesystem::FilesystemServer;
use garth_protocol::process::ProcessServer;

use crate::Shared;
use envd_filesystem::EnvdFilesystem;
use envd_process::EnvdProcess;
use processes::ProcessesService;
use sandbox::SandboxService;

type Ours = Chain<ProcessesServer<ProcessesService>, SandboxServer<SandboxService>>;
type Envd = Chain<ProcessServer<EnvdProcess>, FilesystemServer<EnvdFilesystem>>;

/// All services, by path.
pub type Services = Chain<Ours, Envd>;

/// All services of this agent.
pub fn services(shared: &Arc<Shared>) -> Services {
    let shared = || Arc::clone(shared);
    Chain(
        Chain(ProcessesServer::new(ProcessesService::new(shared())), SandboxServer::new(SandboxService::new(shared()))),
        Chain(ProcessServer::new(EnvdProcess::new(shared())), FilesystemServer::new(EnvdFilesystem::new(shared()))),
    )
}
