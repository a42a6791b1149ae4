use std::ops::RangeInclusive;

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
    /// Bytes a second that it may read from its disk, and as many again that it may write; as fast as it goes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_rate: Option<ByteSize>,
    /// Reads of its disk a second, and as many writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_iops: Option<u32>,
    /// Bytes a second that it may send, and as many again that it may receive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_rate: Option<ByteSize>,
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
    /// The rates that are taken: below, a sandbox would stand still for minutes, and one packet may be 64 KiB.
    pub const RATES: RangeInclusive<u64> = 64 << 10..=1 << 40;
    /// The same in operations a second.
    pub const IOPS: RangeInclusive<u32> = 10..=100_000_000;

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
        for (what, rate) in [("disk rate", self.disk_rate), ("network rate", self.network_rate)] {
            if let Some(rate) = rate.filter(|rate| !Self::RATES.contains(&rate.bytes())) {
                return refuse(what, format!("{rate}/s"), "64 KiB/s to 1 TiB/s");
            }
        }
        if let Some(iops) = self.disk_iops.filter(|iops| !Self::IOPS.contains(iops)) {
            return refuse("disk iops", iops.to_string(), "10 to 100000000");
        }
        Ok(())
    }

    /// Whether reading and writing its disk is held to a rate.
    pub fn has_disk_rate(&self) -> bool {
        self.disk_rate.is_some() || self.disk_iops.is_some()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(2048),
            cpus: CpuCount::try_from(2.0).expect("2 is within 0.01 to 1024"),
            pids: 4096,
            disk: ByteSize::mib(10 * 1024),
            disk_rate: None,
            disk_iops: None,
            network_rate: None,
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
        let bytes = |bytes| ByteSize::from_bytes(bytes).ok();
        assert!(Limits { disk_rate: bytes(65_535), ..ok }.check().is_err());
        assert!(Limits { network_rate: bytes((1 << 40) + 1), ..ok }.check().is_err());
        assert!(Limits { disk_iops: Some(9), ..ok }.check().is_err());
        let rates = Limits { disk_rate: bytes(65_536), network_rate: bytes(1 << 40), disk_iops: Some(10), ..ok };
        assert_eq!(rates.check(), Ok(()));
    }

    #[test]
    fn unknown_limits_are_errors() {
        assert!(serde_json::from_str::<Limits>(r#"{"memroy": 1}"#).is_err());
        assert!(serde_json::from_str::<Limits>(r#"{"memory": 0}"#).is_err());
    }
}
