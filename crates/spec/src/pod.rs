//! What an agent in a Kubernetes Pod and those who make the Pod must agree about.

use serde::{Deserialize, Serialize};

/// Where the agent listens, on every address of the Pod, for who knows its key (`garth_channel::sealed`): the port of E2B's envd.
pub const PORT: u16 = 49983;

/// The file that holds the token: 64 hexadecimal digits, the key by which the agent and a gateway know each other.
pub const TOKEN_FILE: &str = "/garth/token/token";

/// The directory for what the agent keeps: on the project's disk, beside the files.
pub const STATE_DIR: &str = "/garth/state";

/// The variable that holds an [`crate::AgentConfig`] as JSON.
pub const CONFIG_VARIABLE: &str = "GARTH_AGENT_CONFIG";

/// The variable that says, with whatever value, that nobody's project is in this Pod yet: what is its own comes by [`BIND`].
pub const LATE_VARIABLE: &str = "GARTH_AGENT_LATE";

/// Where an agent that waits for its project is told of it: a POST of a [`Binding`].
pub const BIND: &str = "/garth/bind";

/// Where an agent says what its sandbox uses (`garth.agent.v1.Sandbox`), which keeps none awake.
pub const USAGE: &str = "/garth.agent.v1.Sandbox/Usage";

/// What a project adds to a Pod that was there before it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Environment of every process, over what the Pod has; later entries win.
    pub env: Vec<(String, String)>,
    /// The directory processes run in when none is asked for.
    pub workdir: Option<String>,
    /// As [`crate::AgentConfig::suspend_after_seconds`], where the project says it; 0 for never.
    pub suspend_after_seconds: Option<u32>,
}

/// What the agent exits with when nothing has gone on for [`crate::AgentConfig::suspend_after_seconds`].
pub const IDLE: u8 = 0;

/// What it exits with after a signal: 128 and SIGTERM's number, as shells have it.
pub const ENDED: u8 = 143;

/// Where the image of Garth has the agent.
pub const PROGRAM: &str = "/garth-agent";

/// Where the installer puts it in a Pod, beside the files of whatever image.
pub const INSTALLED: &str = "/garth/bin/garth-agent";

/// Where the installer sees the whole disk.
pub const DISK: &str = "/garth/disk";

/// The directory of the disk for the project's files.
pub const FILES: &str = "files";

/// The directory of the disk for what the agent keeps.
pub const STATE: &str = "state";
