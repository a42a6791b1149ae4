//! A kernel file as users and packages have it, to the ELF file that a virtual machine monitor starts at once: a guest
//! that decompresses itself takes half a second longer without KVM.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use object::elf;
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};

use super::compression::Compression;
use super::error::{Error, ErrorKind};

/// Larger than any kernel file, debugging symbols included.
const LARGEST: u64 = 512 << 20;

type Elf<'a> = ElfFile64<'a, object::LittleEndian>;

/// The decompressed kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The ELF file.
    pub(super) vmlinux: Vec<u8>,
    /// What `uname -r` says in the guest.
    pub(super) release: String,
    /// Whether it can be started by its PVH entry, as QEMU and Cloud Hypervisor do.
    pub(super) has_pvh: bool,
}

impl Kernel {
    /// Reads a vmlinux or a bzImage.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let bytes = read(path)?;
        let vmlinux = if is_bzimage(&bytes) { decompress(path, &bytes)? } else { bytes };
        let elf = match Elf::parse(&*vmlinux) {
            Ok(elf) if vmlinux.starts_with(b"\x7fELF") => elf,
            _ => return Err(ErrorKind::NotAKernel { path: path.to_owned(), found: describe(&vmlinux) }.into()),
        };
        let Some(release) = release(&vmlinux) else {
            return Err(ErrorKind::NotAKernel { path: path.to_owned(), found: "a program" }.into());
        };
        if elf.elf_header().e_machine(object::LittleEndian) != elf::EM_X86_64 {
            return Err(ErrorKind::OtherMachine(path.to_owned()).into());
        }
        let has_pvh = has_pvh(&elf, &vmlinux);
        Ok(Self { vmlinux, release, has_pvh })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::file("opened", path))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(ErrorKind::NotAKernel { path: path.to_owned(), found: "a directory" }.into());
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(Error::file("read", path))?;
    bounded(bytes, path)
}

fn bounded(bytes: Vec<u8>, path: &Path) -> Result<Vec<u8>, Error> {
    match bytes.len() as u64 > LARGEST {
        true => Err(ErrorKind::TooLarge { path: path.to_owned(), limit: LARGEST }.into()),
        false => Ok(bytes),
    }
}

/// The setup header's magic, as in the kernel's `Documentation/arch/x86/boot.rst`.
fn is_bzimage(bytes: &[u8]) -> bool {
    bytes.get(0x202..0x206) == Some(b"HdrS")
}

fn decompress(path: &Path, image: &[u8]) -> Result<Vec<u8>, Error> {
    let damaged = || Error::from(ErrorKind::Truncated(path.to_owned()));
    let payload = payload(image).ok_or_else(damaged)?;
    if payload.starts_with(b"\x7fELF") {
        return Ok(payload.to_vec());
    }
    let compression = Compression::of(payload).unwrap_or(Compression::Other("something unknown"));
    if let Compression::Other(compression) = compression {
        return Err(ErrorKind::Compression { path: path.to_owned(), compression }.into());
    }
    // The build appends the length of the content (gzip's own trailer is that): four bytes that are no block of lz4.
    let payload = match compression {
        Compression::Lz4 => payload.get(..payload.len() - 4).ok_or_else(damaged)?,
        _ => payload,
    };
    let mut vmlinux = Vec::new();
    let read = compression.read(payload).and_then(|stream| stream.take(LARGEST + 1).read_to_end(&mut vmlinux));
    read.map_err(|error| Error::because(ErrorKind::Truncated(path.to_owned()), error))?;
    bounded(vmlinux, path)
}

/// `payload_offset` and `payload_length`, from the end of the setup sectors (protocol 2.08 and later: Linux 2.6.26).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    let sectors = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = ((sectors + 1) * 512).checked_add(word(0x248)?)?;
    image.get(start..start.checked_add(word(0x24c)?)?).filter(|payload| payload.len() > 4)
}

/// Every kernel has its banner in it.
fn release(vmlinux: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    memchr::memmem::find_iter(vmlinux, BANNER).find_map(|at| {
        let rest = &vmlinux[at + BANNER.len()..];
        let length = rest.iter().take(128).position(|byte| *byte == b' ')?;
        let release = std::str::from_utf8(&rest[..length]).ok()?;
        release.starts_with(|c: char| c.is_ascii_digit()).then(|| release.to_owned())
    })
}

/// A note of Xen's that names the entry (`XEN_ELFNOTE_PHYS32_ENTRY`).
fn has_pvh(elf: &Elf<'_>, vmlinux: &[u8]) -> bool {
    let endian = object::LittleEndian;
    let notes = elf.elf_program_headers().iter().filter_map(|header| header.notes(endian, vmlinux).ok().flatten());
    notes
        .flat_map(|mut notes| std::iter::from_fn(move || notes.next().ok().flatten()))
        .any(|note| note.name() == b"Xen" && note.n_type(endian) == 0x12)
}

/// What a file that is no kernel looks like.
fn describe(bytes: &[u8]) -> &'static str {
    let at = |from: usize, magic: &[u8]| bytes.get(from..from + magic.len()) == Some(magic);
    match bytes {
        [] => "empty",
        _ if at(0, b"\x7fELF") => "a damaged ELF file",
        _ if at(0, b"!<arch>\ndebian") => "a Debian package",
        _ if at(0, b"070701") => "an initramfs",
        _ if at(0, b"MZ") => "an EFI program without a Linux setup header",
        _ if at(56, b"ARM\x64") => "a kernel for ARM",
        _ if at(0, b"QFI\xfb") => "a disk image",
        _ if Compression::of(bytes).is_some() => "a compressed file",
        _ => "a file of no known format",
    }
}

#[cfg(test)]
mod tests;
