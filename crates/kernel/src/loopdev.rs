//! Loop devices: a file as a block device. Layouts and numbers are those of `include/uapi/linux/loop.h`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// A loop device that a file is attached to. Dropping it detaches nothing.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    file: File,
}

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const _: () = assert!(size_of::<Info>() == 232);

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Config>() == 304);

const SET_CAPACITY: u32 = 0x4c07;
const CLR_FD: u32 = 0x4c01;
const GET_STATUS64: u32 = 0x4c05;
const CONFIGURE: u32 = 0x4c0a;
const CTL_GET_FREE: u32 = 0x4c82;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

impl Info {
    const EMPTY: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        sizelimit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

impl LoopDevice {
    /// Attaches a file to a free device, with direct I/O where the file's filesystem has it, in blocks
    /// of 4096 bytes; the device lets go of the file when its last user does (5.8+).
    ///
    /// `NotFound` when this kernel or this `/dev` has no loop devices.
    pub fn attach(file: BorrowedFd<'_>) -> io::Result<Self> {
        // Between finding a free device and taking it another process can take it: EBUSY, and again.
        for _ in 0..64 {
            let device = Self::open(&free_device()?)?;
            match device.configure(file) {
                Err(Errno::BUSY) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(device),
            }
        }
        Err(Errno::BUSY.into())
    }

    /// The device that a file is attached to already, if there is one.
    pub fn find(file: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let stat = rustix::fs::fstat(file)?;
        let entries = match std::fs::read_dir("/sys/block") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            // Only attached devices have this directory.
            if !entry.path().join("loop").exists() {
                continue;
            }
            let Ok(device) = Self::open(&Path::new("/dev").join(entry.file_name())) else { continue };
            let is_ours = device.info().is_ok_and(|info| info.device == stat.st_dev && info.inode == stat.st_ino);
            if is_ours {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }

    /// The device's node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does it bypass the page cache?
    pub fn has_direct_io(&self) -> io::Result<bool> {
        Ok(self.info()?.flags & DIRECT_IO != 0)
    }

    /// Makes the device as large as its file is now.
    pub fn refresh_capacity(&self) -> io::Result<()> {
        call(self.file.as_fd(), SET_CAPACITY, 0)?;
        Ok(())
    }

    /// Lets go of the file, at once or when the last user does.
    pub fn detach(&self) -> io::Result<()> {
        match call(self.file.as_fd(), CLR_FD, 0) {
            // Nothing is attached any more.
            Err(Errno::NXIO) => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }

    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn info(&self) -> Result<Info, Errno> {
        let mut info = Info::EMPTY;
        // SAFETY: LOOP_GET_STATUS64 fills a loop_info64, which Info lays out and which is exclusively ours.
        let answer = unsafe { libc::ioctl(self.file.as_raw_fd(), GET_STATUS64 as _, &raw mut info) };
        if answer < 0 { Err(last_error()) } else { Ok(info) }
    }

    fn configure(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let info = Info { flags: AUTOCLEAR | DIRECT_IO, ..Info::EMPTY };
        let fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
        let config = Config { fd, block_size: 4096, info, reserved: [0; 8] };
        // SAFETY: LOOP_CONFIGURE reads a loop_config, which Config lays out; `file` is borrowed for the call and
        // the kernel takes its own reference.
        let answer = unsafe { libc::ioctl(self.file.as_raw_fd(), CONFIGURE as _, &raw const config) };
        if answer < 0 { Err(last_error()) } else { Ok(()) }
    }
}

fn free_device() -> io::Result<PathBuf> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let number = call(control.as_fd(), CTL_GET_FREE, 0)?;
    Ok(PathBuf::from(format!("/dev/loop{number}")))
}

/// An ioctl without a pointer.
fn call(fd: BorrowedFd<'_>, request: u32, argument: libc::c_ulong) -> Result<i32, Errno> {
    // SAFETY: the requests passed here (LOOP_SET_CAPACITY, LOOP_CLR_FD, LOOP_CTL_GET_FREE) take a number or
    // nothing: the kernel touches none of our memory.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) };
    if answer < 0 { Err(last_error()) } else { Ok(answer) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
