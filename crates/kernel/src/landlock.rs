//! What the kernel's Landlock can do, landlock(7).

/// LANDLOCK_CREATE_RULESET_VERSION of linux/landlock.h.
const VERSION: libc::c_uint = 1;

/// The version of its interface; 0 where the kernel has none or does not use it.
pub fn version() -> u32 {
    // SAFETY: asked for its version it reads no attributes, so the pointer may be null and the size 0.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_version_where_landlock_is_used() {
        match std::fs::read_to_string("/sys/kernel/security/lsm") {
            Ok(used) => assert_eq!(version() > 0, used.split(',').any(|module| module.trim() == "landlock")),
            Err(error) => println!("SKIP there_is_a_version_where_landlock_is_used: /sys/kernel/security ({error})"),
        }
    }
}
