//! The sandbox's memory, as numbers and as /proc/meminfo.

use std::io::Write;

use crate::reader::number_of;

/// What the host has: never shown, only used as the upper bound, and for the size of its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) total: u64,
    pub(crate) huge_page: u64,
}

impl Host {
    pub(crate) fn parse(meminfo: &str) -> Option<Self> {
        let total = number_of(meminfo, "MemTotal:")?.checked_mul(1024)?;
        Some(Self { total, huge_page: number_of(meminfo, "Hugepagesize:").unwrap_or(0).saturating_mul(1024) })
    }
}

/// The cgroup's memory.stat, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stat {
    pub(crate) limit: Option<u64>,
    cache: u64,
    anon: u64,
    anon_huge: u64,
    pub(crate) shmem: u64,
    mapped: u64,
    dirty: u64,
    writeback: u64,
    inactive_anon: u64,
    active_anon: u64,
    inactive_file: u64,
    active_file: u64,
    unevictable: u64,
    slab_reclaimable: u64,
    slab_unreclaimable: u64,
    kernel_stack: u64,
    page_tables: u64,
    percpu: u64,
}

impl Stat {
    /// Version 1: the sums over the cgroups below, which begin with `total_`, and the smallest limit on the way up.
    pub(crate) fn parse_v1(text: &str) -> Self {
        let mut stat = Self::default();
        for (key, value) in pairs(text) {
            match key.strip_prefix("total_") {
                Some(key) => stat.set(key, value),
                None if key == "hierarchical_memory_limit" => stat.limit = Some(value),
                None => {}
            }
        }
        stat
    }

    pub(crate) fn parse_v2(text: &str) -> Self {
        let mut stat = Self::default();
        pairs(text).for_each(|(key, value)| stat.set(key, value));
        stat
    }

    /// Takes one line; where the two versions name a thing differently, either name.
    fn set(&mut self, key: &str, value: u64) {
        let field = match key {
            "cache" | "file" => &mut self.cache,
            "rss" | "anon" => &mut self.anon,
            "rss_huge" | "anon_thp" => &mut self.anon_huge,
            "shmem" => &mut self.shmem,
            "mapped_file" | "file_mapped" => &mut self.mapped,
            "dirty" | "file_dirty" => &mut self.dirty,
            "writeback" | "file_writeback" => &mut self.writeback,
            "inactive_anon" => &mut self.inactive_anon,
            "active_anon" => &mut self.active_anon,
            "inactive_file" => &mut self.inactive_file,
            "active_file" => &mut self.active_file,
            "unevictable" => &mut self.unevictable,
            "slab_reclaimable" => &mut self.slab_reclaimable,
            "slab_unreclaimable" => &mut self.slab_unreclaimable,
            "kernel_stack" => &mut self.kernel_stack,
            "pagetables" => &mut self.page_tables,
            "percpu" => &mut self.percpu,
            _ => return,
        };
        *field = value;
    }
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// The sandbox's memory now, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) free: u64,
    pub(crate) available: u64,
    pub(crate) stat: Stat,
    huge_page: u64,
}

impl Memory {
    /// Without a limit the host's total is the sandbox's, and what others use of it is not told.
    pub(crate) fn new(host: Host, usage: u64, mut stat: Stat) -> Self {
        let total = stat.limit.unwrap_or(u64::MAX).min(host.total);
        let free = total.saturating_sub(usage);
        // The statistics lag behind the use; more cache than there is memory in use would make tools show nonsense.
        stat.cache = stat.cache.min(total - free);
        let reclaimable = stat.inactive_file.saturating_add(stat.active_file).saturating_add(stat.slab_reclaimable);
        let available = free.saturating_add(reclaimable).min(total);
        Self { total, free, available, stat, huge_page: host.huge_page }
    }

    /// In the order and the columns of the kernel's. There is never swap: what a sandbox may swap counts as memory.
    pub(crate) fn render(&self, out: &mut Vec<u8>) {
        let stat = &self.stat;
        let slab = stat.slab_reclaimable.saturating_add(stat.slab_unreclaimable);
        let lines: [(&str, u64); 45] = [
            ("MemTotal:", self.total),
            ("MemFree:", self.free),
            ("MemAvailable:", self.available),
            ("Buffers:", 0),
            ("Cached:", stat.cache),
            ("SwapCached:", 0),
            ("Active:", stat.active_anon.saturating_add(stat.active_file)),
            ("Inactive:", stat.inactive_anon.saturating_add(stat.inactive_file)),
            ("Active(anon):", stat.active_anon),
            ("Inactive(anon):", stat.inactive_anon),
            ("Active(file):", stat.active_file),
            ("Inactive(file):", stat.inactive_file),
            ("Unevictable:", stat.unevictable),
            ("Mlocked:", 0),
            ("SwapTotal:", 0),
            ("SwapFree:", 0),
            ("Dirty:", stat.dirty),
            ("Writeback:", stat.writeback),
            ("AnonPages:", stat.anon),
            ("Mapped:", stat.mapped),
            ("Shmem:", stat.shmem),
            ("KReclaimable:", stat.slab_reclaimable),
            ("Slab:", slab),
            ("SReclaimable:", stat.slab_reclaimable),
            ("SUnreclaim:", stat.slab_unreclaimable),
            ("KernelStack:", stat.kernel_stack),
            ("PageTables:", stat.page_tables),
            ("SecPageTables:", 0),
            ("NFS_Unstable:", 0),
            ("Bounce:", 0),
            ("WritebackTmp:", 0),
            ("CommitLimit:", self.total),
            ("Committed_AS:", stat.anon.saturating_add(stat.shmem)),
            ("VmallocTotal:", 0),
            ("VmallocUsed:", 0),
            ("VmallocChunk:", 0),
            ("Percpu:", stat.percpu),
            ("AnonHugePages:", stat.anon_huge),
            ("ShmemHugePages:", 0),
            ("ShmemPmdMapped:", 0),
            ("FileHugePages:", 0),
            ("FilePmdMapped:", 0),
            ("Balloon:", 0),
            ("Hugepagesize:", self.huge_page),
            ("Hugetlb:", 0),
        ];
        for (name, bytes) in lines {
            if name == "Hugepagesize:" {
                for name in ["HugePages_Total:", "HugePages_Free:", "HugePages_Rsvd:", "HugePages_Surp:"] {
                    let _ = writeln!(out, "{name:<16}{:>8}", 0);
                }
            }
            let _ = writeln!(out, "{name:<16}{:>8} kB", bytes / 1024);
        }
    }
}

#[cfg(test)]
mod tests;
