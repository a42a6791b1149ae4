//! A machine of one processor and 64 KiB that runs one small program. Numbers and layouts are those of
//! `include/uapi/linux/kvm.h` and `arch/x86/include/uapi/asm/kvm.h`.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// What the guest says, in this order.
pub(super) const WORDS: &[u8] = b"ab";
/// How often it goes around.
pub(super) const LOOPS: u32 = 1_000_000;
/// The call that opens the device.
pub(super) const OPEN: &str = "open /dev/kvm";

const MEMORY: usize = 64 << 10;
const CODE: usize = 0x1000;
/// The tables that map the first 2 MiB to themselves.
const PAGE_TABLES: [usize; 3] = [0x2000, 0x3000, 0x4000];

#[rustfmt::skip]
const PROGRAM: [u8; 41] = [
    0xb0, b'a', 0xe6, 0xf4,             // mov al, 'a'; out 0xf4, al
    0x0f, 0x31,                         // rdtsc
    0x31, 0xc0, 0x0f, 0xa2,             // xor eax, eax; cpuid
    0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, // mov rax, cr3; mov cr3, rax
    0xb9, 0x80, 0x00, 0x00, 0xc0,       // mov ecx, EFER
    0x0f, 0x32, 0x0f, 0x30,             // rdmsr; wrmsr
    0xb9, 0x40, 0x42, 0x0f, 0x00,       // mov ecx, 1000000
    0xff, 0xc9, 0x75, 0xfc,             // dec ecx; jnz back to the dec
    0xb0, b'b', 0xe6, 0xf4,             // mov al, 'b'; out 0xf4, al
    0xf4,                               // hlt
    0xeb, 0xfd,                         // jmp back to the hlt
];

const GET_API_VERSION: u32 = 0xae00;
const CREATE_VM: u32 = 0xae01;
const GET_VCPU_MMAP_SIZE: u32 = 0xae04;
const GET_SUPPORTED_CPUID: u32 = 0xc008_ae05;
const CREATE_VCPU: u32 = 0xae41;
const SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
const SET_TSS_ADDR: u32 = 0xae47;
const RUN: u32 = 0xae80;
const GET_REGS: u32 = 0x8090_ae81;
const SET_REGS: u32 = 0x4090_ae82;
const GET_SREGS: u32 = 0x8138_ae83;
const SET_SREGS: u32 = 0x4138_ae84;
const SET_CPUID2: u32 = 0x4008_ae90;

const EXIT_IO: u32 = 2;
const EXIT_HLT: u32 = 5;

/// A call that was refused.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) call: &'static str,
    pub(super) error: Errno,
}

/// Why the processor stopped.
#[derive(Debug)]
pub(super) enum Exit {
    Output(u8),
    Halted,
    Other(u32),
}

#[derive(Debug)]
pub(super) struct Machine {
    processor: OwnedFd,
    /// `struct kvm_run`, as large as the kernel says.
    shared: Mapping,
    _memory: Mapping,
    _vm: OwnedFd,
}

#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct Region {
    slot: u32,
    flags: u32,
    guest_address: u64,
    size: u64,
    address: u64,
}

/// `struct kvm_regs`.
#[repr(C)]
#[derive(Default)]
struct Registers {
    rax: u64,
    rbx: u64,
    rcx: u64,
    /// rdx, rsi, rdi, rsp, rbp, r8 to r15.
    others: [u64; 13],
    rip: u64,
    rflags: u64,
}

const _: () = assert!(size_of::<Registers>() == 144);

/// `struct kvm_segment`.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Segment {
    base: u64,
    limit: u32,
    selector: u16,
    kind: u8,
    present: u8,
    privilege: u8,
    is_32_bit: u8,
    is_code_or_data: u8,
    is_64_bit: u8,
    is_in_pages: u8,
    available: u8,
    unusable: u8,
    padding: u8,
}

/// `struct kvm_sregs`.
#[repr(C)]
#[derive(Default)]
struct SystemRegisters {
    code: Segment,
    /// ds, es, fs, gs, ss.
    data: [Segment; 5],
    /// tr, ldt.
    system: [Segment; 2],
    /// gdt, idt: base, and limit in the low 16 bits.
    tables: [[u64; 2]; 2],
    cr0: u64,
    cr2: u64,
    cr3: u64,
    cr4: u64,
    cr8: u64,
    efer: u64,
    apic_base: u64,
    interrupts: [u64; 4],
}

const _: () = assert!(size_of::<SystemRegisters>() == 312);

/// `struct kvm_cpuid2` with room for as many entries as any processor has.
#[repr(C)]
struct Features {
    count: u32,
    padding: u32,
    entries: [[u32; 10]; 256],
}

impl Machine {
    /// Everything up to the first instruction.
    pub(super) fn new() -> Result<Self, Failure> {
        let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/kvm");
        let device = device.map_err(|error| Failure { call: OPEN, error: errno(&error) })?;
        let device = OwnedFd::from(device);
        if number(&device, "KVM_GET_API_VERSION", GET_API_VERSION, 0)? != 12 {
            return Err(Failure { call: "KVM_GET_API_VERSION", error: Errno::NOSYS });
        }
        let vm = descriptor(&device, "KVM_CREATE_VM", CREATE_VM)?;
        // Processors of Intel without unrestricted guests need three pages of their own; others ignore this.
        let _ = number(&vm, "KVM_SET_TSS_ADDR", SET_TSS_ADDR, 0xfffb_d000);
        let memory = Mapping::memory()?;
        let (size, address) = (memory.length as u64, memory.start.as_ptr() as u64);
        let mut region = Region { slot: 0, flags: 0, guest_address: 0, size, address };
        structure(&vm, "KVM_SET_USER_MEMORY_REGION", SET_USER_MEMORY_REGION, &mut region)?;
        let processor = descriptor(&vm, "KVM_CREATE_VCPU", CREATE_VCPU)?;
        let size = number(&device, "KVM_GET_VCPU_MMAP_SIZE", GET_VCPU_MMAP_SIZE, 0)?;
        let shared = Mapping::shared(&processor, size)?;
        let mut features = Features { count: 256, padding: 0, entries: [[0; 10]; 256] };
        structure(&device, "KVM_GET_SUPPORTED_CPUID", GET_SUPPORTED_CPUID, &mut features)?;
        structure(&processor, "KVM_SET_CPUID2", SET_CPUID2, &mut features)?;
        enter_long_mode(&processor)?;
        Ok(Self { processor, shared, _memory: memory, _vm: vm })
    }

    /// Runs until the guest does something that we have to see.
    pub(super) fn run(&mut self) -> Result<Exit, Errno> {
        call(&self.processor, RUN, 0)?;
        Ok(match self.shared.read::<u32>(8) {
            // The direction, width, port and count are those of the program's only `out`.
            EXIT_IO => Exit::Output(self.shared.read::<u8>(self.shared.read::<u64>(40) as usize)),
            EXIT_HLT => Exit::Halted,
            reason => Exit::Other(reason),
        })
    }

    /// What is in ecx.
    pub(super) fn loops_left(&self) -> Result<u32, Failure> {
        let mut registers = Registers::default();
        structure(&self.processor, "KVM_GET_REGS", GET_REGS, &mut registers)?;
        Ok(registers.rcx as u32)
    }
}

fn enter_long_mode(processor: &OwnedFd) -> Result<(), Failure> {
    let mut system = SystemRegisters::default();
    structure(processor, "KVM_GET_SREGS", GET_SREGS, &mut system)?;
    let flat = Segment { limit: u32::MAX, present: 1, is_code_or_data: 1, is_in_pages: 1, ..Segment::default() };
    system.code = Segment { selector: 8, kind: 11, is_64_bit: 1, ..flat };
    system.data = [Segment { selector: 16, kind: 3, is_32_bit: 1, ..flat }; 5];
    // PE, MP, ET, NE, WP, AM, PG; PAE; LME and LMA.
    (system.cr0, system.cr4, system.efer) = (0x8005_0033, 0x20, 0x500);
    system.cr3 = PAGE_TABLES[0] as u64;
    structure(processor, "KVM_SET_SREGS", SET_SREGS, &mut system)?;
    let mut registers = Registers { rip: CODE as u64, rflags: 2, ..Registers::default() };
    structure(processor, "KVM_SET_REGS", SET_REGS, &mut registers)
}

impl Mapping {
    /// The guest's memory, with the program and its page tables.
    fn memory() -> Result<Self, Failure> {
        // SAFETY: a new private mapping at a place of the kernel's choice replaces nothing.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), MEMORY, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        let memory = Self::of("map the guest's memory", start, MEMORY)?;
        let [first, second, third] = PAGE_TABLES;
        // Present, writable; the last one a large page.
        for (table, entry) in [(first, second as u64 | 3), (second, third as u64 | 3), (third, 0x83)] {
            memory.write(table, &entry.to_le_bytes());
        }
        memory.write(CODE, &PROGRAM);
        Ok(memory)
    }

    fn shared(processor: &OwnedFd, length: usize) -> Result<Self, Failure> {
        // SAFETY: a new mapping at a place of the kernel's choice replaces nothing; it outlives the descriptor.
        let start = unsafe {
            mmap(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, processor, 0)
        };
        Self::of("map the processor's state", start, length)
    }

    fn of(
        call: &'static str,
        start: rustix::io::Result<*mut std::ffi::c_void>,
        length: usize,
    ) -> Result<Self, Failure> {
        let start = start.and_then(|start| NonNull::new(start.cast()).ok_or(Errno::NOMEM));
        Ok(Self { start: start.map_err(|error| Failure { call, error })?, length })
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.length, "only constants of this file are written");
        // SAFETY: in bounds by the assertion; the guest has not begun, so nobody else looks at this memory.
        unsafe { self.start.as_ptr().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    /// A number at a place that the kernel named; zero when that is outside.
    fn read<T: Copy + Default>(&self, at: usize) -> T {
        if at.saturating_add(size_of::<T>()) > self.length {
            return T::default();
        }
        // SAFETY: in bounds by the check above; any bytes are a number; the kernel writes there during KVM_RUN only.
        unsafe { self.start.as_ptr().add(at).cast::<T>().read_unaligned() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is our own mapping, and no reference into it is ever handed out.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn descriptor(fd: &OwnedFd, name: &'static str, request: u32) -> Result<OwnedFd, Failure> {
    let made = call(fd, request, 0).map_err(|error| Failure { call: name, error })?;
    // SAFETY: KVM_CREATE_VM and KVM_CREATE_VCPU give a new descriptor that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

fn number(fd: &OwnedFd, name: &'static str, request: u32, argument: u64) -> Result<usize, Failure> {
    let answer = call(fd, request, argument).map_err(|error| Failure { call: name, error })?;
    Ok(usize::try_from(answer).unwrap_or(0))
}

fn structure<T>(fd: &OwnedFd, name: &'static str, request: u32, argument: &mut T) -> Result<(), Failure> {
    call(fd, request, std::ptr::from_mut(argument) as u64).map(drop).map_err(|error| Failure { call: name, error })
}

fn call(fd: &OwnedFd, request: u32, argument: u64) -> Result<i32, Errno> {
    // SAFETY: each request of this file that takes a pointer is called by `structure` with the structure that it names,
    // exclusively borrowed, of the size that the assertions above hold to the kernel's; the kernel keeps none of them.
    // The region's memory and `struct kvm_run` stay mapped as long as the descriptors that use them are open.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) };
    if answer < 0 { Err(errno(&std::io::Error::last_os_error())) } else { Ok(answer) }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_jumps_back_to_itself_and_the_halt_too() {
        let target = |at: usize| at as i32 + 2 + i32::from(PROGRAM[at + 1] as i8);
        let jnz = PROGRAM.iter().position(|byte| *byte == 0x75).expect("jnz");
        assert_eq!(target(jnz), jnz as i32 - 2);
        assert_eq!(target(PROGRAM.len() - 2), PROGRAM.len() as i32 - 3);
        let loops = PROGRAM[jnz - 6..jnz - 2].try_into().map(u32::from_le_bytes);
        assert_eq!(loops.ok(), Some(LOOPS));
    }
}
