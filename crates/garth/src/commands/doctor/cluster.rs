//! `garth doctor --cluster`.

use std::fmt::Write as _;

use garth_api::Finding;
use garth_cluster::doctor::{self, Section, Where};
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report {
    cluster: Vec<Part>,
}

/// What belongs together.
#[derive(Debug, Serialize)]
struct Part {
    subject: &'static str,
    ok: bool,
    findings: Vec<Finding>,
}

pub async fn run(context: &Context, asked: &Where) -> Result<u8> {
    let unreachable = |error: &(dyn std::error::Error + 'static)| {
        let failure = Failure::new(Exit::Unreachable, "cluster_unreachable", "the cluster cannot be reached");
        failure.because(error).hint("set KUBECONFIG to the file that kubectl uses, or run it in a Pod")
    };
    let client = garth_cluster::connect().await.map_err(|error| unreachable(&error))?;
    let seen = doctor::look(&client, asked).await.map_err(|error| unreachable(&error))?;
    let sections = doctor::judge(&seen, asked, &doctor::now());
    let works = sections.iter().all(Section::is_ok);
    let report = Report { cluster: sections.into_iter().map(part).collect() };
    context.print(&report, text)?;
    Ok(if works { 0 } else { Exit::Unavailable.code() })
}

fn part(section: Section) -> Part {
    let ok = section.is_ok();
    let findings =
        section.findings.into_iter().map(|doctor::Finding { name, ok, detail, fix }| Finding { name, ok, detail, fix });
    Part { subject: section.subject, ok, findings: findings.collect() }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for part in &report.cluster {
        let _ = writeln!(text, "{}: {}", part.subject, if part.ok { "works" } else { "has gaps" });
        super::findings(&mut text, &part.findings);
    }
    text
}
