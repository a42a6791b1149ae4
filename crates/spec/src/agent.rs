use serde::{Deserialize, Serialize};

/// What the agent is told when its sandbox starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Environment of every process: the image's, then the project's; later entries win.
    pub env: Vec<(String, String)>,
    /// The user processes run as when none is asked for: `name`, `uid`, `name:group`, `uid:gid`.
    pub user: String,
    /// The directory processes run in when none is asked for; the user's home when absent.
    pub workdir: Option<String>,
    /// The program that is process 1 in place of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// `no_new_privs` for every process.
    pub no_new_privs: bool,
    /// Bytes of output kept per process; the oldest go first.
    pub output_ring: u64,
    /// After so many seconds without a request and without a process the agent ends itself. In a Pod alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend_after_seconds: Option<u32>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            env: Vec::new(),
            user: "root".to_owned(),
            workdir: None,
            init: None,
            no_new_privs: false,
            output_ring: 8 << 20,
            suspend_after_seconds: None,
        }
    }
}
