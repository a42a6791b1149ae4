//! The static binary `garth-agent`, for the daemon and for tests to run from memory.
//!
//! ```text
//! build.rs: cargo build -p garth-agent --profile sandbox (static) --> OUT_DIR/garth-agent --include_bytes!--> AGENT
//! ```
//!
//! The binary is built by a cargo of its own, with a target directory of its own below the outer one, because it needs
//! another profile and another C library linkage than the rest. `GARTH_AGENT_BINARY=PATH` takes a finished binary
//! instead. A build in the profile `dev` links faster and makes a larger binary; sizes and times that count are those of
//! `--release`. This crate runs nothing.
#![forbid(unsafe_code)]

/// The executable, an ELF file.
pub static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/garth-agent"));

#[cfg(test)]
mod tests {
    use super::AGENT;

    /// The program header that names a dynamic loader (elf(5)).
    const PT_INTERP: u32 = 3;

    #[test]
    fn it_is_a_static_elf_file() {
        assert_eq!(&AGENT[..4], b"\x7fELF");
        let half = |at: usize| u16::from_le_bytes([AGENT[at], AGENT[at + 1]]) as usize;
        // e_phoff is below 64 KiB in every binary a linker makes; e_phentsize and e_phnum follow.
        let (table, size, count) = (half(32), half(54), half(56));
        let kinds = (0..count).map(|index| table + index * size).map(|at| half(at) as u32);
        assert!(kinds.into_iter().all(|kind| kind != PT_INTERP), "it asks for a dynamic loader");
    }
}
