//! The end of the machine.

use rustix::mount::MountFlags;
use rustix::system::{RebootCommand, reboot};

use garth_spec::GuestPower;

/// Writes all out and ends the machine. Returns why it could not.
pub(super) fn end(power: GuestPower) -> std::io::Error {
    rustix::fs::sync();
    // The next mount has nothing to recover then. It fails while a file is open for writing: sync was enough for data.
    let _ = rustix::mount::mount_remount("/", MountFlags::RDONLY, c"");
    let command = match power {
        GuestPower::Off if !has_power_off() => RebootCommand::Restart,
        GuestPower::Off => RebootCommand::PowerOff,
        GuestPower::Reboot => RebootCommand::Restart,
    };
    match reboot(command) {
        Ok(()) => std::io::ErrorKind::Other.into(),
        Err(error) => error.into(),
    }
}

/// A machine that can only be restarted, which its VMM takes for its end, says so on the kernel's command line: told to go
/// off it would stand still for ever.
fn has_power_off() -> bool {
    let words = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    !words.split_whitespace().any(|word| word == "garth.off=restart")
}

/// Where nothing else is left to do. A machine without a way to go off restarts, which a VMM takes for its end, and one
/// that cannot do that either panics with the end of PID 1.
pub(super) fn off() -> ! {
    for power in [GuestPower::Off, GuestPower::Reboot] {
        let error = end(power);
        eprintln!("garth-agent: the machine does not end: {error}");
    }
    std::process::abort()
}
