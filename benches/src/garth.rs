use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use garth_api::{Client, CreateProject, ImageFormat, StopRequest, full_body};
use garth_spec::{ImageName, Limits, Network, ProjectName, ProjectSpec, Runtime};
use http::Request;
use http_body_util::BodyExt as _;

/// Names of the subjects that are ours.
pub const DEFAULT: &str = "garth";
pub const SYSBOX: &str = "garth sysbox";

/// Garth through its HTTP API, with projects of one runtime.
#[derive(Debug, Clone)]
pub struct Garth {
    client: Client,
    image: ImageName,
    runtime: Runtime,
}

impl Garth {
    /// Imports the common root filesystem as an image.
    pub async fn new(socket: &Path, rootfs: &Path) -> Result<Self> {
        let garth = Self { client: Client::new(socket), image: "bench".parse()?, runtime: Runtime::Default };
        let tar = std::process::Command::new("tar").arg("-C").arg(rootfs).args(["-c", "."]).output()?;
        ensure!(tar.status.success(), "tar failed");
        garth.client.import(&garth.image, ImageFormat::Auto, full_body(tar.stdout)).await?;
        Ok(garth)
    }

    /// The same daemon with projects of another runtime, which must work here.
    pub async fn with(&self, runtime: Runtime) -> Result<Self> {
        let other = Self { runtime, ..self.clone() };
        other.keep_running().await?;
        other.stop(0).await?;
        Ok(other)
    }

    pub fn name(&self) -> &'static str {
        match self.runtime {
            Runtime::Default => DEFAULT,
            Runtime::Sysbox => SYSBOX,
            Runtime::Microvm => "garth microvm",
        }
    }

    pub fn image(&self) -> &ImageName {
        &self.image
    }

    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// Sees to it that at least so many projects exist.
    pub async fn prepare(&self, count: usize) -> Result<()> {
        let prefix = format!("bench-{}-", self.runtime);
        let projects = self.client.projects().await?.projects;
        let known = projects.iter().filter(|p| p.name.as_str().starts_with(&prefix)).count();
        for index in known..count {
            self.create(index).await?;
        }
        Ok(())
    }

    pub async fn create(&self, index: usize) -> Result<()> {
        let spec = ProjectSpec {
            image: self.image.clone(),
            runtime: self.runtime.into(),
            network: Network::None,
            limits: Limits::default(),
            ..ProjectSpec::default()
        };
        self.client
            .create(&CreateProject { name: Some(self.project(index)?), ephemeral: false, spec: spec.into() })
            .await?;
        Ok(())
    }

    pub async fn remove(&self, index: usize) -> Result<()> {
        Ok(self.client.remove(&self.project(index)?).await?)
    }

    pub async fn start(&self, index: usize) -> Result<()> {
        self.client.start(&self.project(index)?).await?;
        Ok(())
    }

    pub async fn stop(&self, index: usize) -> Result<()> {
        self.client.stop(&self.project(index)?, &StopRequest { grace_ms: Some(0) }).await?;
        Ok(())
    }

    pub async fn start_true_stop(&self, at_once: usize) -> Result<Vec<Duration>> {
        self.in_parallel(at_once, |garth, index| async move {
            garth.start(index).await?;
            garth.exec(index, &["/bin/true"]).await?;
            garth.stop(index).await
        })
        .await
    }

    /// Starts the first project if it does not run.
    pub async fn keep_running(&self) -> Result<()> {
        self.prepare(1).await?;
        self.start(0).await
    }

    /// `true` so many times at once in the first project, which runs, as the peers do it.
    pub async fn exec_true(&self, at_once: usize) -> Result<Vec<Duration>> {
        self.in_parallel(at_once, |garth, _| async move { garth.exec(0, &["/bin/true"]).await }).await
    }

    /// Runs a command to its end; its exit code must be 0.
    pub async fn exec(&self, index: usize, argv: &[&str]) -> Result<()> {
        self.output(&self.project(index)?, argv).await.map(drop)
    }

    /// Runs a command to its end and returns the whole stream of events, as text.
    pub async fn output(&self, name: &ProjectName, argv: &[&str]) -> Result<String> {
        let request = Request::post("/garth.agent.v1.Processes/Start")
            .header("content-type", "application/connect+json")
            .header("connect-protocol-version", "1")
            .body(full_body(enveloped(&serde_json::json!({"argv": argv}).to_string())))?;
        let answer = self.client.agent(name, request).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        ensure!(text.contains("\"ended\"") && !text.contains("\"exitCode\"") && !text.contains("\"error\""), "{text}");
        Ok(text)
    }

    /// Runs a command to its end and returns what it wrote, by way of a file on the project's disk.
    pub async fn text(&self, name: &ProjectName, argv: &[&str]) -> Result<String> {
        let out = "/root/garth-bench-out";
        let script = ["/bin/sh", "-c", "out=$1; shift; exec \"$@\" > \"$out\"", "sh", out];
        self.output(name, &[&script, argv].concat()).await?;
        let request = Request::get(format!("/files?path={out}&username=root")).body(full_body(""))?;
        let body = self.client.agent(name, request).await?.into_body().collect().await?.to_bytes();
        String::from_utf8(body.to_vec()).context("what a command writes is text")
    }

    /// The pid, on the host, of the init of a running project.
    pub async fn init(&self, index: usize) -> Result<u32> {
        let pid = self.client.project(&self.project(index)?).await?.pid.context("the project does not run")?;
        Ok(pid.try_into()?)
    }

    pub fn project(&self, index: usize) -> Result<ProjectName> {
        Ok(format!("bench-{}-{index}", self.runtime).parse()?)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    async fn in_parallel<F>(&self, at_once: usize, one: impl Fn(Self, usize) -> F) -> Result<Vec<Duration>>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let tasks: Vec<_> = (0..at_once)
            .map(|index| {
                let work = one(self.clone(), index);
                tokio::spawn(async move {
                    let begin = Instant::now();
                    work.await?;
                    anyhow::Ok(begin.elapsed())
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.push(task.await.context("a measuring task does not panic")??);
        }
        Ok(times)
    }

    /// Removes every project and the image.
    pub async fn close(&self) -> Result<()> {
        for project in self.client.projects().await?.projects {
            self.client.remove(&project.name).await?;
        }
        Ok(self.client.remove_image(&self.image).await?)
    }
}

/// One message of a Connect stream: flags, big-endian length, payload.
fn enveloped(json: &str) -> Bytes {
    let length = u32::try_from(json.len()).expect("a request is short");
    [&[0u8][..], &length.to_be_bytes(), json.as_bytes()].concat().into()
}
