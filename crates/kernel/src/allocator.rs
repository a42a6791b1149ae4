//! Settings of the C library's allocator that std has no call for.

/// Makes the allocator give memory back: one arena for all threads, large blocks by mmap(2) and so returned when freed,
/// and little kept at the heap's end (mallopt(3)). For programs of which many run at once and idle.
///
/// Call it before threads exist. Other C libraries than glibc do so already, or cannot.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, 32 << 10),
        (libc::M_TRIM_THRESHOLD, 64 << 10),
        (libc::M_TOP_PAD, 4 << 10),
    ] {
        // SAFETY: mallopt(3) takes two numbers, and takes the allocator's own lock.
        unsafe { libc::mallopt(parameter, value) };
    }
}
