use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::io::Errno;

use super::subvolume::SubvolumeId;
use super::{btrfs_request, ioctl};

/// `struct btrfs_ioctl_search_key`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key {
    tree_id: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    nr_items: u32,
    unused: u32,
    unused_more: [u64; 4],
}

/// `struct btrfs_ioctl_search_args`.
#[repr(C)]
struct Args {
    key: Key,
    buf: [u8; 3992],
}

const _: () = assert!(size_of::<Args>() == 4096);

/// One item of a tree.
pub(super) struct Item {
    pub(super) offset: u64,
    pub(super) data: Vec<u8>,
}

/// `struct btrfs_ioctl_search_header`: transid, objectid, offset, type, len.
const HEADER: usize = 32;

/// The items of one type that belong to one object, in order of their offset.
pub(super) fn items(any: BorrowedFd<'_>, tree: u64, object: u64, kind: u32) -> Result<Vec<Item>, Errno> {
    let mut found: Vec<Item> = Vec::new();
    let mut from = 0;
    loop {
        let page = page(any, tree, object, kind, from)?;
        let Some(last) = page.last().map(|item| item.offset) else { return Ok(found) };
        found.extend(page);
        let Some(next) = last.checked_add(1) else { return Ok(found) };
        from = next;
    }
}

fn page(any: BorrowedFd<'_>, tree: u64, object: u64, kind: u32, from: u64) -> Result<Vec<Item>, Errno> {
    let key = Key {
        tree_id: tree,
        min_objectid: object,
        max_objectid: object,
        min_offset: from,
        max_offset: u64::MAX,
        min_transid: 0,
        max_transid: u64::MAX,
        min_type: kind,
        max_type: kind,
        nr_items: u32::MAX,
        unused: 0,
        unused_more: [0; 4],
    };
    let mut args = Args { key, buf: [0; 3992] };
    // SAFETY: BTRFS_IOC_TREE_SEARCH takes a search_args, which Args lays out.
    unsafe { ioctl(any, btrfs_request::<Args>(3, 17), &mut args)? };
    let mut rest = &args.buf[..];
    let mut found = Vec::new();
    for _ in 0..args.key.nr_items {
        let header = rest.get(..HEADER).ok_or(Errno::IO)?;
        let len = u32_at(header, 28).ok_or(Errno::IO)? as usize;
        let data = rest.get(HEADER..HEADER + len).ok_or(Errno::IO)?;
        found.push(Item { offset: u64_at(header, 16).ok_or(Errno::IO)?, data: data.to_vec() });
        rest = &rest[HEADER + len..];
    }
    Ok(found)
}

/// A little-endian number inside an item, as on disk. (The ioctl's own header is in the machine's order;
/// Garth runs on little-endian machines only, where they are the same.)
pub(super) fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(data.get(at..at + 8)?.try_into().ok()?))
}

pub(super) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

/// BTRFS_ROOT_TREE_OBJECTID.
const ROOT_TREE: u64 = 1;

/// A subvolume inside another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nested {
    /// Its number.
    pub id: SubvolumeId,
    /// The inode, in the outer subvolume, of the directory it is in.
    pub directory: u64,
    /// Its name there.
    pub name: OsString,
}

/// The subvolumes that are directly inside a subvolume, at any depth of directories.
pub fn nested_subvolumes(any: BorrowedFd<'_>, id: SubvolumeId) -> Result<Vec<Nested>, Errno> {
    // BTRFS_ROOT_REF_KEY: objectid is the outer, offset the inner.
    let items = items(any, ROOT_TREE, id.0, 156)?;
    items.iter().map(|item| parse_nested(item).ok_or(Errno::IO)).collect()
}

/// `struct btrfs_root_ref`: dirid 0, sequence 8, name_len 16, then the name.
fn parse_nested(item: &Item) -> Option<Nested> {
    let length = usize::from(u16::from_le_bytes(item.data.get(16..18)?.try_into().ok()?));
    let name = OsString::from_vec(item.data.get(18..18 + length)?.to_vec());
    Some(Nested { id: SubvolumeId(item.offset), directory: u64_at(&item.data, 0)?, name })
}

/// Is there a subvolume with this number, be it one that is deleted and not yet cleaned up?
pub fn subvolume_exists(any: BorrowedFd<'_>, id: SubvolumeId) -> Result<bool, Errno> {
    // BTRFS_ROOT_ITEM_KEY.
    Ok(!items(any, ROOT_TREE, id.0, 132)?.is_empty())
}
