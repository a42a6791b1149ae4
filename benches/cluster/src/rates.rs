//! Sandboxes that are asked for at a steady rate and taken from a pool, on nodes that kwok plays: Garth's and agent-sandbox's,
//! one after the other, on the same API server.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use garth_cluster_lab::{Lab, garth};
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Config, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};

use crate::node::{POOL, WARM};
use crate::stats::Samples;
use crate::table::Table;

const PEER: &str = "agent-sandbox, from a pool";
const NODES: u32 = 12;
const PATIENCE: Duration = Duration::from_secs(900);
const REST: Duration = Duration::from_secs(20);

/// What is asked for, and what is the pool of it.
struct Kind {
    subject: &'static str,
    asked: ApiResource,
    pool: &'static str,
    spec: Value,
    /// Whether one of them can be used.
    is_there: fn(&Value) -> bool,
    /// Sandboxes of a pool that can be taken.
    ready: fn(&Value) -> u64,
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn kinds() -> [Kind; 2] {
    let ready = |object: &Value| object["status"]["readyReplicas"].as_u64().unwrap_or(0);
    let limits = json!({ "memory": "64Mi", "disk": "64Mi" });
    let delete = json!({ "onDelete": "Delete" });
    [
        Kind {
            subject: WARM,
            asked: resource("garth.dev", "v1alpha1", "Project", "projects"),
            pool: "warmpools.garth.dev",
            spec: json!({ "image": "docker.io/library/busybox:1.35", "limits": limits, "disk": delete }),
            is_there: |project| project["status"]["state"] == "Running",
            ready,
        },
        Kind {
            subject: PEER,
            asked: resource("extensions.agents.x-k8s.io", "v1beta1", "SandboxClaim", "sandboxclaims"),
            pool: "sandboxwarmpools.extensions.agents.x-k8s.io",
            spec: json!({ "warmPoolRef": { "name": "bench" } }),
            is_there: |claim| {
                let conditions = claim["status"]["conditions"].as_array();
                conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
            },
            ready,
        },
    ]
}

pub async fn measure(lab: &Lab, rates: &[u32], seconds: u32, table: &mut Table) -> Result<()> {
    lab.with_kwok()?;
    lab.with_agent_sandbox()?;
    for number in 0..NODES {
        lab.add_fake_node(&format!("played-{number}"), &[])?;
    }
    lab.apply(&POOL.replace("replicas: 2", "replicas: 0"))?;
    lab.apply(
        "apiVersion: extensions.agents.x-k8s.io/v1beta1
kind: SandboxTemplate
metadata: {name: bench, namespace: default}
spec:
  podTemplate:
    spec:
      containers:
      - {name: main, image: 'docker.io/library/busybox:1.35', resources: {limits: {cpu: '2', memory: 64Mi}, requests: {cpu: 50m, memory: 64Mi}}}
---
apiVersion: extensions.agents.x-k8s.io/v1beta1
kind: SandboxWarmPool
metadata: {name: bench, namespace: default}
spec: {replicas: 0, sandboxTemplateRef: {name: bench}}",
    )?;
    let client = client(lab).await?;
    for &rate in rates {
        let count = (rate * seconds).max(10);
        for kind in kinds() {
            let mut samples = Samples::new(kind.subject, 1);
            samples.extend_unless_warm_up(1, burst(lab, &client, &kind, rate, count).await?);
            let base = (kind.subject == PEER).then_some(WARM);
            table.add(&format!("taken from a pool, {rate} a second"), samples, base);
        }
    }
    Ok(())
}

async fn client(lab: &Lab) -> Result<Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(lab.kubeconfig())?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?)
}

/// Fills a pool, asks, and leaves nothing.
async fn burst(lab: &Lab, client: &Client, kind: &Kind, rate: u32, count: u32) -> Result<Vec<Duration>> {
    // Also for those that take the place of the taken ones.
    volumes(lab, 2 * count)?;
    let pool = |path: &str| lab.run(&["get", kind.pool, "bench", &format!("--output={path}")]);
    lab.run(&["patch", kind.pool, "bench", "--type=merge", "-p", &json!({"spec": {"replicas": count}}).to_string()])?;
    let began = Instant::now();
    loop {
        let seen: Value = serde_json::from_str(&pool("json")?)?;
        if (kind.ready)(&seen) >= count.into() {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "{}: a pool of {count} is not full after {PATIENCE:?}", kind.subject);
        sleep(Duration::from_millis(500)).await;
    }
    let times = ask(client, kind, rate, count).await?;
    lab.run(&["patch", kind.pool, "bench", "--type=merge", "-p", r#"{"spec":{"replicas":0}}"#])?;
    let plural = format!("{}.{}", kind.asked.plural, kind.asked.group);
    lab.run(&["delete", &plural, "--all", "--timeout=900s"])?;
    while !lab.run(&["get", "pods", "--output=name"])?.is_empty() {
        sleep(Duration::from_millis(500)).await;
    }
    lab.run(&["delete", "persistentvolumes", "--selector=bench=yes", "--timeout=900s"])?;
    Ok(times)
}

fn volumes(lab: &Lab, count: u32) -> Result<()> {
    let volume = |number| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": { "name": format!("bench-{number}"), "labels": { "bench": "yes" } },
            "spec": {
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                "hostPath": { "path": "/nowhere" }, "persistentVolumeReclaimPolicy": "Retain",
            },
        })
    };
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": (0..count).map(volume).collect::<Vec<_>>() });
    lab.apply(&list.to_string())
}

async fn ask(client: &Client, kind: &Kind, rate: u32, count: u32) -> Result<Vec<Duration>> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &kind.asked);
    let (sender, mut came) = mpsc::unbounded_channel();
    let (watched, is_there) = (api.clone(), kind.is_there);
    let watching = tokio::spawn(async move {
        let mut objects = watcher(watched, watcher::Config::default()).applied_objects().boxed();
        while let Ok(Some(object)) = objects.try_next().await {
            if is_there(&object.data) && sender.send((object.name_any(), Instant::now())).is_err() {
                return;
            }
        }
    });
    let mut asked = HashMap::new();
    let mut ticks = interval(Duration::from_secs(1) / rate);
    let mut requests = Vec::new();
    for number in 0..count {
        ticks.tick().await;
        let name = format!("bench-{number}");
        let object = DynamicObject::new(&name, &kind.asked).data(json!({ "spec": kind.spec }));
        asked.insert(name, Instant::now());
        let api = api.clone();
        requests.push(tokio::spawn(async move { api.create(&PostParams::default(), &object).await }));
    }
    for request in requests {
        request.await??;
    }
    let mut times = HashMap::new();
    while times.len() < asked.len() {
        let (name, at) =
            timeout(PATIENCE, came.recv()).await.context("not all came in time")?.context("the watch ended")?;
        if let Some(began) = asked.get(&name) {
            times.entry(name).or_insert(at.duration_since(*began));
        }
    }
    watching.abort();
    Ok(times.into_values().collect())
}

/// How much memory the operator needs for so many projects that rest.
pub async fn many(lab: &Lab, count: u32, operator: u32, table: &mut Table) -> Result<()> {
    let [kind, _] = kinds();
    let client = client(lab).await?;
    let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &kind.asked);
    let (before, asked) = (resident_mib(operator)?, requests(lab)?);
    let began = Instant::now();
    let names: Vec<_> = (0..count).map(|number| format!("many-{number}")).collect();
    let made = futures::stream::iter(&names).map(|name| {
        let mut spec = kind.spec.clone();
        spec["desiredState"] = "Stopped".into();
        let object = DynamicObject::new(name, &kind.asked).data(json!({ "spec": spec }));
        let api = &api;
        async move { api.create(&PostParams::default(), &object).await }
    });
    made.buffer_unordered(16).try_collect::<Vec<_>>().await?;
    let settled = |object: &DynamicObject| object.data["status"]["state"] == "Stopped";
    loop {
        let all = api.list(&ListParams::default()).await?;
        if all.iter().filter(|object| settled(object)).count() == count as usize {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (seconds, after) = (began.elapsed().as_secs_f64(), resident_mib(operator)?);
    let (all, at_rest) = rested(lab).await?;
    let asked = (all - asked) as f64 / f64::from(count);
    table.say(format!(
        "{count} projects that rest: made and taken on in {seconds:.0} s, with {asked:.1} requests of the operator's for each, events \
         too; it has {after} MiB resident, {before} before, and then sends {at_rest} requests in {} s",
        REST.as_secs()
    ));
    Ok(())
}

/// Waits until the operator has told of all that it did, by events: its requests so far, and those of a while in which nothing is.
async fn rested(lab: &Lab) -> Result<(u64, u64)> {
    let began = Instant::now();
    loop {
        let before = requests(lab)?;
        sleep(REST).await;
        let meanwhile = requests(lab)? - before;
        // Its lease is renewed every other second. One that does not come to rest is what the table says then.
        if meanwhile <= REST.as_secs() || began.elapsed() > PATIENCE {
            return Ok((before, meanwhile));
        }
    }
}

/// Requests that the operator has sent to the API server.
fn requests(lab: &Lab) -> Result<u64> {
    let said = garth::metrics(lab)?;
    let numbers = said.lines().filter(|line| line.starts_with("garth_operator_requests_total{"));
    numbers.map(|line| Ok(line.rsplit(' ').next().context("a number")?.parse::<u64>()?)).sum()
}

/// Of a process, or of the one that it looks after: proc_pid_status(5).
fn resident_mib(pid: u32) -> Result<u64> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    if let Some(child) = children.split_whitespace().next() {
        return resident_mib(child.parse()?);
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kibibytes: u64 = line.split_whitespace().next().context("a number")?.parse()?;
    Ok(kibibytes >> 10)
}
