use axum::Json;
use axum::extract::State;
use garth_api::{Doctor, ErrorBody, RuntimeDoctor};
use garth_engine::Findings;
use garth_spec::Runtime;

use crate::failure::Failure;
use crate::router::App;
use crate::view;

/// What works on this machine, what does not, and the command that fixes it.
#[utoipa::path(get, path = "/v1/doctor", responses((status = 200, body = Doctor), (status = "5XX", body = ErrorBody)))]
pub(crate) async fn doctor(State(app): State<App>) -> Result<Json<Doctor>, Failure> {
    Ok(Json(report(app.engine.findings().await?)))
}

/// What works on this machine, without a daemon.
pub fn probe() -> Doctor {
    report(garth_engine::probe())
}

fn report(found: Findings) -> Doctor {
    let mut own = view::findings(found.runtime);
    let runtimes = [Runtime::Default, Runtime::Sysbox, Runtime::Microvm].map(|runtime| {
        let findings = match garth_engine::missing(runtime) {
            Some(missing) => view::findings(vec![missing]),
            None => std::mem::take(&mut own),
        };
        RuntimeDoctor { runtime, ok: findings.iter().all(|finding| finding.ok), findings }
    });
    Doctor { runtimes: runtimes.into(), storage: view::findings(found.storage), network: view::findings(found.network) }
}
