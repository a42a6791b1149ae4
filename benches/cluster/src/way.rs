//! What the gateway adds to a request: the same one by it, and straight to the agent.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use garth_api::Client;
use garth_channel::sealed::{self, Key};
use garth_cluster_lab::Lab;
use garth_spec::pod::PORT;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};

use crate::node::{create, exec};
use crate::stats::Samples;
use crate::table::Table;

const DIRECT: &str = "straight to the agent";
const GATEWAY: &str = "by the gateway";
const ROUNDS: usize = 500;

pub async fn measure(lab: &Lab, socket: &Path, table: &mut Table) -> Result<()> {
    let client = Client::new(socket);
    let name = "way".parse()?;
    create(&client, &name).await?;
    exec(&client, &name).await?;
    let address = lab.run(&["get", "pod", "way", "--output=jsonpath={.status.podIP}"])?;
    let direct = TcpStream::connect((address.as_str(), PORT)).await?;
    direct.set_nodelay(true)?;
    let mut direct = BufReader::new(sealed::connect(direct, &key(lab, "way")?).await?);
    let mut gateway = BufReader::new(UnixStream::connect(socket).await?);
    let (mut straight, mut through) = (Samples::new(DIRECT, 1), Samples::new(GATEWAY, 1));
    for round in 0..=ROUNDS {
        straight.extend_unless_warm_up(round, vec![ask(&mut direct, "/health").await?]);
        through.extend_unless_warm_up(round, vec![ask(&mut gateway, "/v1/projects/way/agent/health").await?]);
    }
    table.add("a request to an agent", straight, None);
    table.add("a request to an agent", through, Some(DIRECT));
    client.remove(&name).await?;
    Ok(())
}

/// The key of a project's agent.
fn key(lab: &Lab, name: &str) -> Result<Key> {
    let secrets = lab.run(&["get", "secrets", "--output=name"])?;
    let prefix = format!("secret/{name}-key-");
    let secret = secrets.lines().find(|line| line.starts_with(&prefix)).context("the project has no Secret")?;
    let token = lab.run(&["get", secret, "--output=go-template={{.data.token | base64decode}}"])?;
    Key::from_hex(&token).context("the project's token is no key")
}

/// A GET without an answer's body, on a connection that stays.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, path: &str) -> Result<Duration> {
    let began = Instant::now();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line).await? > 0, "the connection ended");
        match line.trim() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    ensure!(lines.first().is_some_and(|line| line.contains(" 204")), "{lines:?}");
    Ok(began.elapsed())
}
