use garth_spec::Handler;
use garth_vm::guest::{self, Artifacts, KernelSource, Progress, Source};

use super::{Host, lock};
use crate::error::{Error, ErrorKind};
use crate::guest::GuestReport;

impl Host {
    pub(in crate::local) fn setup_microvm(
        &self,
        kernel: KernelSource,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<GuestReport, Error> {
        let _one_at_a_time = lock(&self.setup);
        let options = guest::Options { data_dir: &self.guests.cache_dir, agent: self.agent, kernel };
        let made = guest::setup(&options, progress).map_err(explain)?;
        let findings = crate::doctor::of_handler(Handler::MicrovmQemu, &self.here());
        let lacking = findings.into_iter().filter(|finding| !finding.ok).collect();
        Ok(report(&made, lacking))
    }
}

pub(super) fn explain(error: guest::Error) -> Error {
    let kind = match error.kind() {
        guest::ErrorKind::NoSpace => ErrorKind::NoSpace,
        _ => ErrorKind::Guest,
    };
    let hint = error.hint().map(str::to_owned);
    Error::because(kind, error).maybe_hint(hint)
}

fn report(made: &Artifacts, lacking: Vec<crate::doctor::Finding>) -> GuestReport {
    let source = match &made.manifest().source {
        Source::Packages(packages) => packages.iter().map(|(name, version, _)| format!("{name} {version}")).collect(),
        Source::File(path, _) => vec![path.display().to_string()],
    };
    GuestReport { release: made.manifest().release.clone(), source, directory: made.directory().to_owned(), lacking }
}
