//! What the sandbox uses, as far as it can see itself.

use std::fs;
use std::os::fd::BorrowedFd;

use garth_protocol::agent::UsageResponse;

/// Reads the numbers that are there; the rest is 0. `disk` is a directory on the project's.
pub fn read(disk: BorrowedFd<'_>) -> UsageResponse {
    let disk = rustix::fs::fstatvfs(disk).ok();
    let bytes = |blocks: fn(&rustix::fs::StatVfs) -> u64| disk.as_ref().map_or(0, |d| blocks(d) * d.f_frsize);
    UsageResponse {
        pids: u32::try_from(first(&["pids.current", "pids/pids.current"])).unwrap_or(u32::MAX),
        memory_used: first(&["memory.current", "memory/memory.usage_in_bytes"]).saturating_sub(idle_cache()),
        memory_limit: first(&["memory.max", "memory/memory.limit_in_bytes"]),
        cpu_micros: cpu_micros(),
        oom_kills: field(&["memory.events", "memory/memory.oom_control"], "oom_kill"),
        disk_used: bytes(|d| d.f_blocks - d.f_bfree),
        disk_total: bytes(|d| d.f_blocks),
        ..Default::default()
    }
}

/// Whether there is room for a command and some children of its own below the limit on processes: a quarter of the
/// limit, at most 16. True where the sandbox cannot see its limit.
pub fn has_room_for_processes() -> bool {
    let limit = first(&["pids.max", "pids/pids.max"]);
    limit == 0 || first(&["pids.current", "pids/pids.current"]) + 16.min(limit / 4) <= limit
}

/// The number in the first of these files that has one; `max` is none.
fn first(files: &[&str]) -> u64 {
    files.iter().find_map(|file| cgroup(file)?.trim().parse().ok()).unwrap_or(0)
}

fn cpu_micros() -> u64 {
    match field(&["cpu.stat"], "usage_usec") {
        0 => first(&["cpuacct/cpuacct.usage"]) / 1000,
        micros => micros,
    }
}

/// What the kernel would give back first.
fn idle_cache() -> u64 {
    match field(&["memory/memory.stat"], "total_inactive_file") {
        0 => field(&["memory.stat"], "inactive_file"),
        bytes => bytes,
    }
}

/// The number behind a name, in the first of these files that has it.
fn field(files: &[&str], name: &str) -> u64 {
    let number = |text: String| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    files.iter().find_map(|file| number(cgroup(file)?)).unwrap_or(0)
}

fn cgroup(file: &str) -> Option<String> {
    fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()
}
