//! Processes that are only on disk: of earlier sandboxes of the project, or ended too long ago to be in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use garth_protocol::agent::{EndReason, Ended, Process};

use super::output::Output;
use super::ring::{Directory, Segment};

/// Ended processes that are kept on disk.
pub const REMEMBERED: usize = 64;
/// Full rings that ended processes may take together.
const RINGS: u64 = 4;

/// One process as found on disk. Its output can be read like any other's.
#[derive(Debug, Clone)]
pub struct Archived {
    /// As it was last described.
    pub process: Process,
    /// What is kept of its output.
    pub output: Arc<Output>,
}

/// All processes on disk that are not in `known`, oldest first. Blocks.
pub fn list(directory: &Directory, known: &[String]) -> io::Result<Vec<Archived>> {
    let mut found: Vec<Archived> = by_id(directory)?
        .into_iter()
        .filter(|(id, _)| !known.contains(id))
        .filter_map(|(id, numbers)| read(directory, &id, numbers).ok())
        .collect();
    found.sort_by_key(|archived| archived.process.started_at_ms);
    Ok(found)
}

/// One process on disk. Blocks.
pub fn find(directory: &Directory, id: &str) -> io::Result<Option<Archived>> {
    by_id(directory)?.remove(id).map(|numbers| read(directory, id, numbers)).transpose()
}

/// Removes what was written longest ago, until few processes and little output is left. Blocks.
pub fn prune(directory: &Directory, running: &[String], capacity: u64) -> io::Result<()> {
    let mut ended: Vec<(i64, String, Vec<u64>)> = by_id(directory)?
        .into_iter()
        .filter(|(id, _)| !running.contains(id))
        .map(|(id, numbers)| (numbers.last().map_or(0, |last| directory.written_at(&id, *last)), id, numbers))
        .collect();
    ended.sort_by(|a, b| b.cmp(a));
    let mut room = capacity * RINGS;
    for (place, (_, id, numbers)) in ended.into_iter().enumerate() {
        let size: u64 = numbers.iter().map(|number| directory.size(&id, *number)).sum();
        if place < REMEMBERED && size <= room {
            room -= size;
        } else {
            numbers.iter().try_for_each(|number| directory.remove(&id, *number))?;
        }
    }
    Ok(())
}

fn by_id(directory: &Directory) -> io::Result<BTreeMap<String, Vec<u64>>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (id, number) in directory.list()? {
        found.entry(id).or_default().push(number);
    }
    found.values_mut().for_each(|numbers| numbers.sort_unstable());
    Ok(found)
}

fn read(directory: &Directory, id: &str, numbers: Vec<u64>) -> io::Result<Archived> {
    let mut segments = Vec::new();
    let mut last = None;
    for number in numbers {
        let contents = directory.read(id, number, u64::MAX, usize::MAX)?;
        segments.push(Segment { number, start: contents.start });
        last = Some(contents);
    }
    let contents = last.ok_or(io::ErrorKind::NotFound)?;
    let mut process = contents.process;
    let lost = || Ended { reason: EndReason::END_REASON_LOST.into(), ..Default::default() };
    let mut ended = Option::from(std::mem::take(&mut process.ended)).unwrap_or_else(lost);
    ended.offset = contents.next;
    process.id = id.to_owned();
    process.pid = 0;
    process.lingering = false;
    process.input_open = false;
    process.first_offset = segments.first().map_or(0, |segment| segment.start);
    process.next_offset = contents.next;
    process.ended = ended.clone().into();
    Ok(Archived { process, output: Arc::new(Output::archived(segments, ended)) })
}
