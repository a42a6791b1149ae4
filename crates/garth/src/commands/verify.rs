use clap::Args;
use garth_api::Verification;
use garth_spec::ProjectName;

use crate::context::{Context, Repeat};
use crate::exit::Exit;
use crate::failure::Result;
use crate::options::OneProject;
use crate::output::{cell, table};

#[derive(Debug, Args)]
#[command(after_help = "\
Tries from inside the sandbox what its runtime is to prevent, looks at it from the host, and says of each check
whether it passed and what was seen. A stopped project is started. The outcome is kept: see garth inspect.
With limits of 512 MiB and 512 processes or less, the sandbox is made to meet them for a moment.
Of a microvm the host looks at the hypervisor's process, and no limit is met on purpose.
On a cluster there is no host to look from: its API server says what became of the Pod, and no limit is met.

Ends with 1 when a check failed.")]
pub struct Verify {
    #[command(flatten)]
    pub project: OneProject,
}

pub async fn run(context: &Context, args: Verify) -> Result<u8> {
    let name = &args.project.name;
    let outcome = context.ask(Repeat::Safe, async |client| client.verify(name).await).await?;
    context.print(&outcome, |outcome| text(name, outcome))?;
    Ok(if outcome.passed { 0 } else { Exit::Failed.code() })
}

fn text(name: &ProjectName, outcome: &Verification) -> String {
    let rows: Vec<[String; 4]> = outcome
        .checks
        .iter()
        .map(|check| {
            let verdict = if check.passed { "pass" } else { "fail" };
            [verdict.to_owned(), cell(&check.id, 40), cell(&check.what, 100), cell(&check.evidence, 200)]
        })
        .collect();
    let failed = outcome.checks.iter().filter(|check| !check.passed).count();
    let table = table(["RESULT", "CHECK", "WHAT", "EVIDENCE"], &rows);
    format!("{table}{name}: {} checks, {failed} failed\n", rows.len())
}

#[cfg(test)]
mod tests {
    use garth_api::Check;
    use garth_spec::{Handler, Runtime};

    use super::*;

    #[test]
    fn the_last_line_counts_what_failed() {
        let check = |id: &str, passed| Check { id: id.into(), what: "w".into(), passed, evidence: "e".into() };
        let outcome = Verification {
            runtime: Runtime::Default,
            handler: Some(Handler::DefaultNative),
            passed: false,
            at: jiff::Timestamp::UNIX_EPOCH,
            checks: vec![check("mounts", true), check("root", false)],
        };
        assert_eq!(
            text(&"web".parse().expect("name"), &outcome),
            "RESULT  CHECK   WHAT  EVIDENCE\npass    mounts  w     e\nfail    root    w     e\nweb: 2 checks, 1 failed\n"
        );
    }
}
