use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use garth_api::CreateProject;
use garth_spec::{Network, ProjectName, ProjectSpec};
use serde::Serialize;

use crate::garth::Garth;

/// One kind of file work, on the host and inside, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct FileWork {
    pub what: String,
    pub host_ms: f64,
    pub inside_ms: f64,
}

/// The same program runs in both places; it prints `NAME MILLISECONDS` lines.
const WORK: &str = r#"
import os, sys, time, shutil
d = sys.argv[1] + "/garth-bench-files"; os.makedirs(d); os.chdir(d)
def timed(name, work):
    begin = time.perf_counter(); work(); print(name.replace(" ", "_"), (time.perf_counter() - begin) * 1e3)
block = os.urandom(1 << 20)
def sequential():
    f = os.open("big", os.O_CREAT | os.O_WRONLY)
    for _ in range(256): os.write(f, block)
    os.fsync(f); os.close(f)
def synced():
    f = os.open("log", os.O_CREAT | os.O_WRONLY)
    for _ in range(300): os.write(f, block[:4096]); os.fsync(f)
    os.close(f)
def small():
    for i in range(3000):
        with open(f"s{i}", "wb") as f: f.write(block[:2048])
def read():
    for i in range(3000):
        with open(f"s{i}", "rb") as f: f.read()
def remove():
    for i in range(3000): os.unlink(f"s{i}")
timed("write 256 MiB, fsync", sequential)
timed("300 x write 4 KiB, fsync", synced)
timed("make 3000 files of 2 KiB", small)
timed("read them", read)
timed("remove them", remove)
shutil.rmtree(d)
"#;

pub async fn measure(garth: &Garth, work: &Path) -> Result<Vec<FileWork>> {
    let name: ProjectName = "bench-files".parse()?;
    let spec = ProjectSpec { network: Network::None, ..ProjectSpec::default() };
    garth.client().create(&CreateProject { name: Some(name.clone()), ephemeral: false, spec }).await?;
    let mut rows: BTreeMap<String, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for _ in 0..3 {
        let host = std::process::Command::new("/usr/bin/python3").args(["-c", WORK]).arg(work).output()?;
        for (what, ms) in lines(&String::from_utf8_lossy(&host.stdout)) {
            rows.entry(what).or_default().0.push(ms);
        }
        for (what, ms) in lines(&inside(garth, &name).await?) {
            rows.entry(what).or_default().1.push(ms);
        }
    }
    garth.client().remove(&name).await?;
    let row = |(what, (host, inside))| FileWork { what, host_ms: median(host), inside_ms: median(inside) };
    Ok(rows.into_iter().map(row).collect())
}

async fn inside(garth: &Garth, name: &ProjectName) -> Result<String> {
    let out = "/root/garth-bench-out";
    let program = format!("import sys; sys.argv = ['', '/root']; sys.stdout = open('{out}', 'w')\n{WORK}");
    garth.output(name, &["/usr/bin/python3", "-c", &program]).await?;
    let request = http::Request::get(format!("/files?path={out}&username=root")).body(garth_api::full_body(""))?;
    let answer = garth.client().agent(name, request).await?;
    let body = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
    String::from_utf8(body.to_vec()).context("the figures are text")
}

fn lines(text: &str) -> Vec<(String, f64)> {
    let parse = |line: &str| {
        let (what, ms) = line.rsplit_once(' ')?;
        Some((what.replace('_', " "), ms.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
