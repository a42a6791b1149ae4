//! What the gateway adds to a request: the same one by it, and straight to the agent.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use garth_api::Client;
use garth_cluster_lab::Lab;
use garth_spec::pod::PORT;

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
    let mut direct = BufReader::new(TcpStream::connect((address.as_str(), PORT))?);
    direct.get_ref().set_nodelay(true)?;
    let mut gateway = BufReader::new(UnixStream::connect(socket)?);
    let (mut straight, mut through) = (Samples::new(DIRECT, 1), Samples::new(GATEWAY, 1));
    for round in 0..=ROUNDS {
        straight.extend_unless_warm_up(round, vec![ask(&mut direct, "/health")?]);
        through.extend_unless_warm_up(round, vec![ask(&mut gateway, "/v1/projects/way/agent/health")?]);
    }
    table.add("a request to an agent", straight, None);
    table.add("a request to an agent", through, Some(DIRECT));
    client.remove(&name).await?;
    Ok(())
}

/// A GET without an answer's body, on a connection that stays.
fn ask<S: Read>(stream: &mut BufReader<S>, path: &str) -> Result<Duration>
where
    for<'a> &'a S: Write,
{
    let began = Instant::now();
    stream.get_ref().write_all(format!("GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n").as_bytes())?;
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line)? > 0, "the connection ended");
        match line.trim() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    ensure!(lines.first().is_some_and(|line| line.contains(" 204")), "{lines:?}");
    Ok(began.elapsed())
}
