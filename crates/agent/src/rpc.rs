//! The Connect services: each turns messages into calls of the parts that do the work, and results into messages.

#![expect(refining_impl_trait, reason = "handlers return plain messages; the generated traits allow views too")]

mod processes;
mod sandbox;

use std::sync::Arc;

use connectrpc::Chain;
use garth_protocol::agent::{ProcessesServer, SandboxServer};

use crate::Shared;
use processes::ProcessesService;
use sandbox::SandboxService;

/// All services, by path.
pub type Services = Chain<ProcessesServer<ProcessesService>, SandboxServer<SandboxService>>;

/// All services of this agent.
pub fn services(shared: &Arc<Shared>) -> Services {
    Chain(
        ProcessesServer::new(ProcessesService::new(Arc::clone(shared))),
        SandboxServer::new(SandboxService::new(Arc::clone(shared))),
    )
}
