use std::fs::File;
use std::sync::MutexGuard;

use garth_spec::{Handler, Runtime};
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
        let _one_at_a_time = self.alone()?;
        let options = guest::Options { data_dir: &self.guests.cache_dir, agent: self.agent, kernel };
        let made = guest::setup(&options, progress).map_err(explain)?;
        // Which one will do is not known yet; where none does, this is what the host's distribution has.
        let handler = self.handler(Runtime::Microvm.into()).unwrap_or(Handler::MicrovmQemu);
        let findings = crate::doctor::of_handler(handler, &self.here());
        let lacking = findings.into_iter().filter(|finding| !finding.ok).collect();
        Ok(report(&made, lacking))
    }

    /// What guests start from, made now where there is nothing yet.
    pub(super) fn artifacts(&self) -> Result<Artifacts, Error> {
        let find = || Artifacts::find(&self.guests.cache_dir, self.agent).map_err(explain);
        if let Ok(Some(found)) = find() {
            return Ok(found);
        }
        let alone = self.alone()?;
        if let Ok(Some(found)) = find() {
            return Ok(found);
        }
        drop(alone);
        tracing::info!("making what microVMs start from");
        self.setup_microvm(KernelSource::Distribution, &mut |_| {})?;
        find()?.ok_or_else(|| ErrorKind::Guest.into())
    }

    /// Held while the files of guests are made: by one thread of one of the daemons that share them.
    fn alone(&self) -> Result<(MutexGuard<'_, ()>, File), Error> {
        let own = lock(&self.setup);
        let doing = |error: std::io::Error| Error::because(ErrorKind::Guest, error).step("wait for other daemons");
        let path = self.guests.cache_dir.join("guest.lock");
        let made = std::fs::create_dir_all(&self.guests.cache_dir).and_then(|()| File::create(&path));
        let file = made.map_err(doing)?;
        file.lock().map_err(doing)?;
        Ok((own, file))
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
