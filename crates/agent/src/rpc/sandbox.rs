//! `garth.agent.v1.Sandbox`.

use std::sync::Arc;
use std::time::Duration;

use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult};
use garth_protocol::agent::{
    InfoRequest, InfoResponse, Sandbox, ShutdownRequest, ShutdownResponse, UsageRequest, UsageResponse,
};

use crate::{ENVD_VERSION, Shared, reaper, usage};

/// See the module.
pub struct SandboxService {
    shared: Arc<Shared>,
}

impl SandboxService {
    /// The service of this agent.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Sandbox for SandboxService {
    async fn info(&self, _: RequestContext, _: ServiceRequest<'_, InfoRequest>) -> ServiceResult<InfoResponse> {
        Response::ok(InfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            envd_version: ENVD_VERSION.to_owned(),
            started_at_ms: self.shared.started_at_ms,
            ..Default::default()
        })
    }

    async fn usage(&self, _: RequestContext, _: ServiceRequest<'_, UsageRequest>) -> ServiceResult<UsageResponse> {
        Response::ok(usage::read(self.shared.processes.disk()))
    }

    async fn shutdown(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, ShutdownRequest>,
    ) -> ServiceResult<ShutdownResponse> {
        if self.shared.config.init.is_some() {
            // It ends its services in their order, then everything else, this agent too.
            garth_kernel::signal::power_off(rustix::process::Pid::INIT)
                .map_err(|error| connectrpc::ConnectError::internal(format!("the init was not told: {error}")))?;
            return Response::ok(ShutdownResponse::default());
        }
        let killed = reaper::shut_down(&self.shared, Duration::from_millis(request.grace_ms)).await;
        Response::ok(ShutdownResponse { killed, ..Default::default() })
    }
}
