//! The bundle that Sysbox is given, run by the machine's `runc`: what does not depend on Sysbox's own parts.

use garth_runtime::Container;

use crate::lifecycle::left;
use crate::support::{Reply, Yard, fresh_id, run_at, skip};

/// A yard whose OCI runtime is `runc`, or `None` (said loudly).
fn yard(test: &str) -> Option<Yard> {
    let runc = garth_runtime::OciRuntime { program: "runc".into(), sockets: Vec::new() };
    let missing = runc.probe().into_iter().find(|finding| !finding.ok).map(|finding| finding.detail);
    match (missing, Yard::new()) {
        (None, Ok(yard)) => Some(yard),
        (Some(missing), _) | (None, Err(missing)) => {
            skip(test, &missing);
            None
        }
    }
}

fn sh(container: &Container, script: &str) -> Reply {
    run_at(&container.agent_socket(), &["/bin/sh", "-c", script])
}

fn out(container: &Container, script: &str) -> String {
    let reply = sh(container, script);
    assert_eq!(reply.code, 0, "{script}\n{}", reply.err);
    reply.out.trim().to_owned()
}

#[test]
fn the_agent_answers_and_nothing_is_left_in_the_end() {
    let Some(mut yard) = yard("the_agent_answers_and_nothing_is_left_in_the_end") else { return };
    for _ in 0..3 {
        let container = yard.start_container(fresh_id(), &yard.plan());
        assert_eq!(out(&container, "hostname; id -u; cat /etc/hostname"), "yard\n0\nyard");
        assert_eq!(out(&container, "readlink /proc/1/fd/0 /proc/1/fd/2"), "/dev/null\n/dev/null");
        container.destroy().expect("destroy");
    }
    yard.close();
    assert_eq!(left(&yard), Vec::<String>::new());
}
