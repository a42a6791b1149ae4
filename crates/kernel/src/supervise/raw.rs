//! System calls and a clone without libc: nothing here touches `errno` or any other thread-local, which two tasks that
//! share their memory (and so their thread pointer) would overwrite for each other.
#![allow(clippy::inline_always, reason = "a call frame would be shared by nobody, but costs stack")]

use std::arch::asm;
use std::ffi::{c_int, c_long, c_void};

/// A system call with up to five arguments; negative results are `-errno`.
///
/// # Safety
/// The arguments must be what the call of this number expects; see its manual page.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn call(number: c_long, a: [usize; 5]) -> isize {
    let result;
    // SAFETY: the kernel clobbers rcx, r11 and rax only (syscall(2)); what the call does is the caller's promise.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
             in("r10") a[3], in("r8") a[4], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call with up to five arguments; negative results are `-errno`.
///
/// # Safety
/// The arguments must be what the call of this number expects; see its manual page.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn call(number: c_long, a: [usize; 5]) -> isize {
    let result;
    // SAFETY: the kernel clobbers x0 only (syscall(2)); what the call does is the caller's promise.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a[0] => result, in("x1") a[1], in("x2") a[2], in("x3") a[3],
             in("x4") a[4], options(nostack));
    }
    result
}

/// clone(2) into `entry(argument)` on a stack of its own. Returns the child's pid, or `-errno`.
///
/// # Safety
/// `stack_top` must be 16-byte aligned and the end of memory that stays mapped and unused by anyone else while the
/// child runs; `entry` must be sound to run with `argument` in a task with these `flags`, in parallel with the caller.
#[cfg(target_arch = "x86_64")]
pub unsafe fn clone(
    flags: c_int,
    stack_top: *mut u8,
    entry: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> isize {
    let result;
    // SAFETY: the parent continues after label 2 with its registers as they were but for rax, rcx, r11. The child starts
    // on its own stack, calls `entry`, and never comes back, so nothing of the parent's frame is used twice.
    unsafe {
        asm!("syscall", "test rax, rax", "jnz 2f", "xor ebp, ebp", "mov rdi, r12", "call r13", "ud2", "2:",
             inlateout("rax") libc::SYS_clone as isize => result, in("rdi") flags as isize, in("rsi") stack_top,
             in("rdx") 0usize, in("r10") 0usize, in("r8") 0usize, in("r12") argument, in("r13") entry,
             lateout("rcx") _, lateout("r11") _);
    }
    result
}

/// clone(2) into `entry(argument)` on a stack of its own. Returns the child's pid, or `-errno`.
///
/// # Safety
/// `stack_top` must be 16-byte aligned and the end of memory that stays mapped and unused by anyone else while the
/// child runs; `entry` must be sound to run with `argument` in a task with these `flags`, in parallel with the caller.
#[cfg(target_arch = "aarch64")]
pub unsafe fn clone(
    flags: c_int,
    stack_top: *mut u8,
    entry: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> isize {
    let result;
    // SAFETY: the parent continues after label 2 with its registers as they were but for x0. The child starts on its own
    // stack, calls `entry`, and never comes back, so nothing of the parent's frame is used twice.
    unsafe {
        asm!("svc 0", "cbnz x0, 2f", "mov x29, xzr", "mov x0, x20", "blr x21", "brk 1", "2:",
             in("x8") libc::SYS_clone, inlateout("x0") flags as isize => result, in("x1") stack_top, in("x2") 0usize,
             in("x3") 0usize, in("x4") 0usize, in("x20") argument, in("x21") entry);
    }
    result
}
