use axum::Json;
use axum::extract::State;
use garth_api::{Doctor, ErrorBody, RuntimeDoctor};
use garth_engine::{Findings, GuestConfig, Here};

use crate::failure::Failure;
use crate::router::App;
use crate::view;

/// What works on this machine, what does not, and the command that fixes it.
#[utoipa::path(get, path = "/v1/doctor", responses((status = 200, body = Doctor), (status = "5XX", body = ErrorBody)))]
pub(crate) async fn doctor(State(app): State<App>) -> Result<Json<Doctor>, Failure> {
    Ok(Json(report(local(&app)?.findings().await?)))
}

/// What works on this machine, without a daemon.
pub fn probe(agent: &[u8], guests: &GuestConfig) -> Doctor {
    report(garth_engine::probe(&Here { agent, guests }))
}

/// A cluster is looked at with other eyes.
fn local(app: &App) -> Result<&garth_engine::Engine, Failure> {
    app.engine.local("what this machine can do", "`garth doctor --cluster` looks at the cluster")
}

fn report(found: Findings) -> Doctor {
    let runtimes = found.runtimes.into_iter().map(|(handler, findings)| {
        let ok = findings.iter().all(|finding| finding.ok);
        RuntimeDoctor { runtime: handler.runtime(), handler, ok, findings: view::findings(findings) }
    });
    Doctor {
        runtimes: runtimes.collect(),
        storage: view::findings(found.storage),
        network: view::findings(found.network),
    }
}
