mod cluster;

use std::fmt::Write as _;

use clap::Args;
use garth_agent_binary::AGENT;
use garth_api::{Doctor as Report, Finding};
use garth_cluster::doctor::Where;
use garth_server::GuestConfig;
use garth_spec::Runtime;

use crate::context::{Context, Format, Repeat};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::cell;

#[derive(Debug, Args)]
#[command(
    after_help = "Ends with 8 when the default runtime does not work here, or something of the cluster does not, with 7 when\nno daemon can be started or no API server answers."
)]
pub struct Doctor {
    /// Look at the cluster that KUBECONFIG or the Pod's account leads to, instead of this machine
    #[arg(long)]
    pub cluster: bool,
    /// Namespace of the operator and the gateway
    #[arg(long, value_name = "NAME", default_value = "garth", requires = "cluster")]
    pub namespace: String,
    /// Namespace of the projects
    #[arg(long, value_name = "NAME", default_value = "default", requires = "cluster")]
    pub projects: String,
}

pub async fn run(context: &Context, args: Doctor) -> Result<u8> {
    if args.cluster {
        let Doctor { namespace, projects, .. } = args;
        return cluster::run(context, &Where { namespace, projects }).await;
    }
    let asked = context.ask(Repeat::Safe, async |client| client.doctor().await).await;
    // Where no daemon can start, what is missing is what one wants to know.
    let report = match &asked {
        Err(failure) if failure.exit == Exit::Unreachable => garth_server::doctor(AGENT, &GuestConfig::default()),
        _ => asked.clone()?,
    };
    context.print(&report, text)?;
    if let Err(failure) = asked {
        report_on_stderr(&failure);
        return Ok(failure.exit.code());
    }
    let works = report.runtimes.iter().any(|runtime| runtime.runtime == Runtime::Default && runtime.ok);
    Ok(if works { 0 } else { Exit::Unavailable.code() })
}

/// Beside a report that stands on standard output already.
fn report_on_stderr(failure: &Failure) {
    crate::report(failure, Format::Text);
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for runtime in &report.runtimes {
        // One that works is enough for a project that names none.
        let others = report.runtimes.iter().filter(|other| other.runtime == runtime.runtime);
        let verdict = match (runtime.ok, others.clone().find(|other| other.ok)) {
            (true, _) => "works".to_owned(),
            (false, Some(other)) => format!("does not work here (optional: {} does)", other.handler),
            (false, None) => "does not work here".to_owned(),
        };
        let _ = writeln!(text, "runtime {}: {verdict}", runtime.handler);
        findings(&mut text, &runtime.findings);
    }
    for (subject, found) in [("storage", &report.storage), ("network", &report.network)] {
        let verdict = if found.iter().all(|finding| finding.ok) { "works" } else { "has gaps" };
        let _ = writeln!(text, "{subject}: {verdict}");
        findings(&mut text, found);
    }
    text
}

fn findings(text: &mut String, findings: &[Finding]) {
    for finding in findings {
        let mark = if finding.ok { "ok  " } else { "no  " };
        let _ = writeln!(text, "  {mark}{}: {}", cell(&finding.name, 60), cell(&finding.detail, 300));
        if let Some(fix) = finding.fix.as_ref().filter(|_| !finding.ok) {
            let _ = writeln!(text, "      fix: {}", cell(fix, 300));
        }
    }
}

#[cfg(test)]
mod tests {
    use garth_api::RuntimeDoctor;
    use garth_spec::Handler;

    use super::*;

    #[test]
    fn what_is_missing_comes_with_its_fix() {
        let finding = |ok, fix: Option<&str>| Finding {
            name: "nft".into(),
            ok,
            detail: "is there".into(),
            fix: fix.map(Into::into),
        };
        let doctor = |handler: Handler, ok| RuntimeDoctor {
            runtime: handler.runtime(),
            handler,
            ok,
            findings: vec![finding(ok, None)],
        };
        let report = Report {
            runtimes: vec![doctor(Handler::SysboxNative, true), doctor(Handler::SysboxRunc, false)],
            storage: vec![],
            network: vec![finding(false, Some("apt install nftables"))],
        };
        assert_eq!(
            text(&report),
            "runtime sysbox/native: works\n  ok  nft: is there\nruntime sysbox/sysbox-runc: does not work here (optional: sysbox/native does)\n  no  nft: is there\nstorage: works\nnetwork: has gaps\n  no  nft: is there\n      fix: apt install nftables\n"
        );
    }
}
