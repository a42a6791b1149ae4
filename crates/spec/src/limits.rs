use serde::{Deserialize, Serialize};

use crate::{ByteSize, CpuCount};

/// What one sandbox may use at most. Nothing here is a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory in bytes, page cache and swap included: swap is not extra.
    pub memory: ByteSize,
    /// Processors; thousandths count.
    pub cpus: CpuCount,
    /// Processes and threads, the agent's included.
    pub pids: u32,
    /// The project's disk in bytes: its files and the kept output of its processes.
    pub disk: ByteSize,
}

/// A limit too small to start a sandbox with, or outside the kernel's range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} limit {value} is outside {range}")]
pub struct InvalidLimit {
    what: &'static str,
    value: String,
    range: &'static str,
}

impl Limits {
    /// The smallest memory a sandbox starts with: the agent, a shell and the kernel's own share.
    pub const LEAST_MEMORY: ByteSize = ByteSize::mib(16);
    /// The smallest disk: one btrfs quota below this stops the agent's own records.
    pub const LEAST_DISK: ByteSize = ByteSize::mib(16);

    /// Refuses limits under which no sandbox could start.
    pub fn check(&self) -> Result<(), InvalidLimit> {
        let refuse = |what, value: String, range| Err(InvalidLimit { what, value, range });
        if self.memory < Self::LEAST_MEMORY {
            return refuse("memory", self.memory.to_string(), "16 MiB and above");
        }
        if self.disk < Self::LEAST_DISK {
            return refuse("disk", self.disk.to_string(), "16 MiB and above");
        }
        // PID_MAX_LIMIT of a 64-bit kernel (include/linux/threads.h).
        if !(8..=4_194_304).contains(&self.pids) {
            return refuse("pids", self.pids.to_string(), "8 to 4194304");
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(2048),
            cpus: CpuCount::try_from(2.0).expect("2 is within 0.01 to 1024"),
            pids: 4096,
            disk: ByteSize::mib(10 * 1024),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_too_small_to_start_with_are_refused() {
        let ok = Limits::default();
        assert_eq!(ok.check(), Ok(()));
        assert!(Limits { memory: ByteSize::mib(1), ..ok }.check().is_err());
        assert!(Limits { pids: 2, ..ok }.check().is_err());
        assert!(Limits { disk: ByteSize::mib(1), ..ok }.check().is_err());
    }

    #[test]
    fn unknown_limits_are_errors() {
        assert!(serde_json::from_str::<Limits>(r#"{"memroy": 1}"#).is_err());
        assert!(serde_json::from_str::<Limits>(r#"{"memory": 0}"#).is_err());
    }
}
