use std::io;
use std::os::fd::OwnedFd;

/// The program that spawners and sandboxes run, in a sealed memory file: no sandbox can overwrite it through
/// `/proc/PID/exe`, and all share its pages.
#[derive(Debug)]
pub struct AgentBinary(pub(crate) OwnedFd);

impl AgentBinary {
    /// Seals the bytes of a static executable.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Self> {
        garth_kernel::memfd::sealed("garth-agent", bytes).map(Self)
    }
}
