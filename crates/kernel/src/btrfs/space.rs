use std::ffi::OsStr;
use std::fmt;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::search::{items, u64_at};
use super::{btrfs_request, ioctl, put_name, request};

/// A filesystem's UUID, as the kernel names it below `/sys/fs/btrfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsId([u8; 16]);

impl fmt::Display for FsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if [4, 6, 8, 10].contains(&at) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// `struct btrfs_ioctl_fs_info_args`, as far as it is read.
#[repr(C)]
struct FsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u8; 992],
}

/// The UUID of the filesystem that a file is on.
pub fn fs_id(any: BorrowedFd<'_>) -> Result<FsId, Errno> {
    let mut info = FsInfo { max_id: 0, num_devices: 0, fsid: [0; 16], rest: [0; 992] };
    // SAFETY: BTRFS_IOC_FS_INFO takes an fs_info_args of 1024 bytes, whose beginning FsInfo lays out.
    unsafe { ioctl(any, btrfs_request::<FsInfo>(2, 31), &mut info)? };
    Ok(FsId(info.fsid))
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct NameArgs {
    fd: i64,
    name: [u8; 4088],
}

/// Sets the size of a filesystem's only device. Shrinking below what is taken moves chunks, and fails
/// with `ENOSPC` when they fit nowhere. Durable when this returns.
pub fn resize(any: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    let mut args = NameArgs { fd: 0, name: [0; 4088] };
    put_name(&mut args.name, OsStr::new(&format!("1:{bytes}")))?;
    // SAFETY: BTRFS_IOC_RESIZE takes a vol_args, which NameArgs lays out, with a NUL behind the name.
    unsafe { ioctl(any, btrfs_request::<NameArgs>(1, 3), &mut args) }
}

/// Commits everything written so far, and wakes the kernel's cleaner of deleted subvolumes.
pub fn sync(any: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: BTRFS_IOC_SYNC takes no argument and ignores what it is given.
    unsafe { ioctl(any, request(0, 0x94, 8, 0), &mut 0u64) }
}

/// Makes what was done so far to names, subvolumes and quota groups durable. Unlike [`sync`] it does
/// not write the content of files: a neighbour's gigabytes are not waited for.
pub fn commit(any: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut transaction = 0u64;
    // SAFETY: BTRFS_IOC_START_SYNC writes a u64.
    unsafe { ioctl(any, btrfs_request::<u64>(2, 24), &mut transaction)? };
    // SAFETY: BTRFS_IOC_WAIT_SYNC reads a u64.
    unsafe { ioctl(any, btrfs_request::<u64>(1, 22), &mut transaction) }
}

/// Tells the device which blocks are free: FITRIM. The number of bytes.
pub fn trim(any: BorrowedFd<'_>) -> Result<u64, Errno> {
    // `struct fstrim_range`: start, len, minlen.
    let mut range = [0, u64::MAX, 0];
    // SAFETY: FITRIM takes an fstrim_range: three u64.
    unsafe { ioctl(any, request(3, b'X', 121, size_of::<[u64; 3]>()), &mut range)? };
    Ok(range[1])
}

/// What a chunk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockGroupKind {
    /// Files' content.
    Data,
    /// The trees, which the filesystem cannot go on without.
    Metadata,
}

/// A piece of the device that the filesystem has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// What it holds.
    pub kind: BlockGroupKind,
    /// Where it begins on the device, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The chunks of a filesystem on one device with the profiles `single` or `dup`.
pub fn chunks(any: BorrowedFd<'_>) -> Result<Vec<Chunk>, Errno> {
    // BTRFS_CHUNK_TREE_OBJECTID, BTRFS_FIRST_CHUNK_TREE_OBJECTID, BTRFS_CHUNK_ITEM_KEY.
    let mut found = Vec::new();
    for item in items(any, 3, 256, 228)? {
        parse_chunk(&item.data, &mut found).ok_or(Errno::IO)?;
    }
    Ok(found)
}

/// `struct btrfs_chunk`: length 0, type 24, num_stripes 44; from 48 on stripes of 32 bytes: devid, offset, uuid.
fn parse_chunk(data: &[u8], found: &mut Vec<Chunk>) -> Option<()> {
    let length = u64_at(data, 0)?;
    let kind = if u64_at(data, 24)? & 1 != 0 { BlockGroupKind::Data } else { BlockGroupKind::Metadata };
    let stripes = u16::from_le_bytes(data.get(44..46)?.try_into().ok()?);
    for stripe in 0..usize::from(stripes) {
        found.push(Chunk { kind, start: u64_at(data, 48 + stripe * 32 + 8)?, length });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_as_the_kernel_names_it() {
        let id = FsId([1, 0x92, 0x7b, 0x70, 0x71, 1, 0x42, 0x1f, 0xaf, 0xdc, 0xdb, 0xc7, 0xd5, 0x9e, 0xbc, 0x70]);
        assert_eq!(id.to_string(), "01927b70-7101-421f-afdc-dbc7d59ebc70");
    }

    #[test]
    fn a_chunk_with_two_copies_takes_two_places() {
        let mut data = vec![0; 48 + 64];
        data[0..8].copy_from_slice(&(8u64 << 20).to_le_bytes());
        data[24..32].copy_from_slice(&(4u64 | (1 << 5)).to_le_bytes());
        data[44] = 2;
        data[56..64].copy_from_slice(&(1u64 << 20).to_le_bytes());
        data[88..96].copy_from_slice(&(9u64 << 20).to_le_bytes());
        let mut found = Vec::new();
        parse_chunk(&data, &mut found).unwrap();
        let chunk = |start| Chunk { kind: BlockGroupKind::Metadata, start, length: 8 << 20 };
        assert_eq!(found, [chunk(1 << 20), chunk(9 << 20)]);
        assert!(parse_chunk(&data[..60], &mut Vec::new()).is_none());
    }
}
