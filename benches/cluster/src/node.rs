//! What a user waits for: a project that is made, and its first command, on a real node.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use garth_api::{Client, CreateProject, full_body};
use garth_cluster_lab::Lab;
use garth_spec::{ByteSize, Limits, ProjectName, ProjectSpec};
use http::Request;
use http_body_util::BodyExt as _;

use crate::stats::Samples;
use crate::table::Table;

pub const COLD: &str = "garth, cold";
pub const WARM: &str = "garth, from a pool";

/// A template of the image and limits of [`spec`], and a pool of it.
pub const POOL: &str = "apiVersion: garth.dev/v1alpha1
kind: ProjectTemplate
metadata: {name: bench, namespace: default}
spec: {image: 'docker.io/library/busybox:1.35', limits: {memory: 64Mi, disk: 64Mi}}
---
apiVersion: garth.dev/v1alpha1
kind: WarmPool
metadata: {name: bench, namespace: default}
spec: {template: bench, replicas: 2}
";

pub fn spec() -> Result<ProjectSpec> {
    let mebibytes = |count: u64| ByteSize::from_bytes(count << 20);
    let limits = Limits { memory: mebibytes(64)?, disk: mebibytes(64)?, ..Limits::default() };
    Ok(ProjectSpec { limits, ..ProjectSpec::default() })
}

pub async fn measure(lab: &Lab, socket: &Path, count: usize, table: &mut Table) -> Result<()> {
    let client = Client::new(socket);
    for subject in [COLD, WARM] {
        if subject == WARM {
            lab.apply(POOL)?;
        }
        let mut samples = Samples::new(subject, 1);
        for round in 0..=count {
            if subject == WARM {
                lab.run(&["wait", "--for=condition=Ready", "--timeout=120s", "warmpool", "bench"])?;
            }
            let name: ProjectName = format!("first-{round}").parse()?;
            let began = Instant::now();
            create(&client, &name).await?;
            exec(&client, &name).await?;
            samples.extend_unless_warm_up(round, vec![began.elapsed()]);
            client.remove(&name).await?;
        }
        table.add("create, first command", samples, (subject == WARM).then_some(COLD));
    }
    lab.run(&["delete", "warmpool", "bench", "--timeout=60s"])?;
    Ok(())
}

pub async fn create(client: &Client, name: &ProjectName) -> Result<()> {
    let project = CreateProject { name: Some(name.clone()), ephemeral: false, spec: spec()?.into() };
    client.create(&project).await?;
    Ok(())
}

/// `true`, to its end.
pub async fn exec(client: &Client, name: &ProjectName) -> Result<()> {
    let start = br#"{"argv":["true"]}"#;
    let mut body = vec![0, 0, 0, 0, u8::try_from(start.len())?];
    body.extend_from_slice(start);
    let request = Request::post("/garth.agent.v1.Processes/Start")
        .header("content-type", "application/connect+json")
        .header("connect-protocol-version", "1")
        .body(full_body(body))?;
    let body = client.agent(name, request).await?.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    ensure!(text.contains("\"ended\"") && !text.contains("\"exitCode\"") && !text.contains("\"error\""), "{text}");
    Ok(())
}
