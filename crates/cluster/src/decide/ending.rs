//! How a Pod ended.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};

use crate::resources::EndedReason;

/// How, and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub reason: EndedReason,
    pub detail: String,
}

/// None of one that has not ended.
pub fn of(pod: &Pod) -> Option<Ending> {
    let status = pod.status.as_ref()?;
    if !matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return None;
    }
    let said =
        [status.reason.as_deref(), status.message.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    if status.reason.as_deref() == Some("Evicted") {
        return Some(Ending { reason: EndedReason::Evicted, detail: said });
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let failed = containers
        .filter_map(|container| Some((&container.name, container.state.as_ref()?.terminated.as_ref()?)))
        .find(|(_, terminated)| terminated.exit_code != 0);
    let ending = match failed {
        Some((_, terminated)) if terminated.reason.as_deref() == Some("OOMKilled") => Ending {
            reason: EndedReason::OutOfMemory,
            detail: "the kernel ended it for memory: raise spec.limits.memory".to_owned(),
        },
        Some((name, terminated)) => {
            Ending { reason: EndedReason::Died, detail: format!("its container {name} {}", exit(terminated)) }
        }
        // The agent ends with 0 for this alone (`garth_spec::pod::IDLE`).
        None if said.is_empty() => Ending { reason: EndedReason::Idle, detail: "nothing went on in it".to_owned() },
        None => Ending { reason: EndedReason::Died, detail: said },
    };
    Some(ending)
}

fn exit(terminated: &ContainerStateTerminated) -> String {
    let words = [terminated.reason.as_deref(), terminated.message.as_deref()].into_iter().flatten();
    words.fold(format!("ended with {}", terminated.exit_code), |line, word| format!("{line}: {word}"))
}
