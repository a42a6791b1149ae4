//! The names and numbers of the files: a small fixed tree.

/// One virtual file. The number is its inode: the kernel remembers it over a restart of the server, even to a newer
/// one, so numbers are only ever added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
#[non_exhaustive]
pub enum Node {
    /// Memory: the limit as the total.
    Meminfo = 16,
    /// The first of the host's processors, as many as the quota amounts to.
    Cpuinfo = 17,
    /// Processor time of the sandbox, and when it started.
    Stat = 18,
    /// Processors in use, damped.
    Loadavg = 19,
    /// Time since the start, and idle time.
    Uptime = 20,
    /// None.
    Swaps = 21,
    /// One device, summed over the real ones.
    Diskstats = 22,
    /// Stalls for want of a processor.
    PressureCpu = 23,
    /// Stalls for want of a disk.
    PressureIo = 24,
    /// Stalls for want of memory.
    PressureMemory = 25,
    /// Processors that run.
    CpuOnline = 26,
    /// Processors that are there.
    CpuPresent = 27,
    /// Processors that could be added.
    CpuPossible = 28,
    /// The sandbox's id as a machine's.
    ProductUuid = 29,
    /// What kind of machine this is.
    ProductName = 30,
    /// Who made it.
    SysVendor = 31,
}

/// Where a file or directory is shown in the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A path below /proc.
    Proc(&'static str),
    /// A path below /sys.
    Sys(&'static str),
}

/// Every file, its path below the root of the mount, and where it is shown. Files with a `/` in their path are in one
/// of the [`DIRECTORIES`], which can be bound as a whole.
pub const NODES: &[(Node, &str, Place)] = &[
    (Node::Meminfo, "meminfo", Place::Proc("meminfo")),
    (Node::Cpuinfo, "cpuinfo", Place::Proc("cpuinfo")),
    (Node::Stat, "stat", Place::Proc("stat")),
    (Node::Loadavg, "loadavg", Place::Proc("loadavg")),
    (Node::Uptime, "uptime", Place::Proc("uptime")),
    (Node::Swaps, "swaps", Place::Proc("swaps")),
    (Node::Diskstats, "diskstats", Place::Proc("diskstats")),
    (Node::PressureCpu, "pressure/cpu", Place::Proc("pressure/cpu")),
    (Node::PressureIo, "pressure/io", Place::Proc("pressure/io")),
    (Node::PressureMemory, "pressure/memory", Place::Proc("pressure/memory")),
    (Node::CpuOnline, "cpu_online", Place::Sys("devices/system/cpu/online")),
    (Node::CpuPresent, "cpu_present", Place::Sys("devices/system/cpu/present")),
    (Node::CpuPossible, "cpu_possible", Place::Sys("devices/system/cpu/possible")),
    (Node::ProductUuid, "dmi/product_uuid", Place::Sys("devices/virtual/dmi/id/product_uuid")),
    (Node::ProductName, "dmi/product_name", Place::Sys("devices/virtual/dmi/id/product_name")),
    (Node::SysVendor, "dmi/sys_vendor", Place::Sys("devices/virtual/dmi/id/sys_vendor")),
];

/// The directories below the root of the mount, and which directory each replaces: one bind instead of one for each
/// file, and what else is in the host's (its serial numbers, with DMI) does not show. Only ever appended to.
pub const DIRECTORIES: &[(&str, Place)] =
    &[("pressure", Place::Proc("pressure")), ("dmi", Place::Sys("devices/virtual/dmi/id"))];

/// What an inode number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inode {
    Root,
    /// By its index in [`DIRECTORIES`].
    Directory(usize),
    File(Node),
}

impl Inode {
    pub(crate) fn from_id(id: u64) -> Option<Self> {
        match id {
            1 => Some(Self::Root),
            2..16 => usize::try_from(id - 2).ok().filter(|at| *at < DIRECTORIES.len()).map(Self::Directory),
            _ => NODES.iter().find(|(node, ..)| *node as u64 == id).map(|(node, ..)| Self::File(*node)),
        }
    }

    pub(crate) fn id(self) -> u64 {
        match self {
            Self::Root => 1,
            Self::Directory(at) => 2 + at as u64,
            Self::File(node) => node as u64,
        }
    }

    pub(crate) fn is_directory(self) -> bool {
        !matches!(self, Self::File(_))
    }

    /// What is in a directory, with names; nothing is in a file.
    pub(crate) fn children(self) -> impl Iterator<Item = (Self, &'static str)> {
        let directories = DIRECTORIES.iter().enumerate().map(|(at, (name, _))| (Self::Directory(at), *name));
        let directories = directories.filter(move |_| self == Self::Root);
        let files = NODES.iter().filter_map(move |(node, path, _)| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            (self.is_directory() && parent == self.path()).then_some((Self::File(*node), name))
        });
        directories.chain(files)
    }

    pub(crate) fn lookup(self, name: &[u8]) -> Option<Self> {
        self.children().find(|(_, known)| known.as_bytes() == name).map(|(child, _)| child)
    }

    /// Of a directory.
    fn path(self) -> &'static str {
        match self {
            Self::Directory(at) => DIRECTORIES.get(at).map_or("", |(name, _)| name),
            Self::Root | Self::File(_) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_found_by_its_path_and_by_its_number() {
        for (node, path, _) in NODES {
            let found = path.split('/').try_fold(Inode::Root, |at, name| at.lookup(name.as_bytes()));
            assert_eq!(found, Some(Inode::File(*node)), "{path}");
            assert_eq!(Inode::from_id(Inode::File(*node).id()), Some(Inode::File(*node)), "{path}");
        }
    }

    #[test]
    fn numbers_of_nothing_are_nothing() {
        for id in [0, 2 + DIRECTORIES.len() as u64, 15, 32, u64::MAX] {
            assert_eq!(Inode::from_id(id), None, "{id}");
        }
        assert_eq!(Inode::File(Node::Meminfo).lookup(b"meminfo"), None);
        assert_eq!(Inode::Root.lookup(b"pressure/cpu"), None);
    }

    #[test]
    fn the_numbers_of_released_files_stay() {
        let numbers: Vec<u64> = NODES.iter().map(|(node, ..)| *node as u64).collect();
        assert_eq!(numbers, (16..32).collect::<Vec<_>>());
        assert_eq!(Inode::Root.lookup(b"pressure").map(Inode::id), Some(2));
        assert_eq!(Inode::Root.lookup(b"dmi").map(Inode::id), Some(3));
    }
}
