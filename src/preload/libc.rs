//! The functions of libc behind those that the shim stands in for, where the program's own calls go on.
//!
//! A system call would do the same but for one thing: threads that wait in libc's functions can be cancelled
//! (pthreads(7)). Where they cannot be found, as with a glibc before 2.34 in a program without libdl, it is the system call.

use core::arch::asm;
use core::ffi::{CStr, c_char, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::abi::number;
use crate::intercept::answer;
use crate::syscalls::{Fd, Message, Slice, forward, forward_six};

/// `RTLD_NEXT` of dlsym(3): the one that would be used without the shim.
const RTLD_NEXT: usize = usize::MAX;

/// One of libc's functions.
struct Function {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Function {
    const fn named(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(null_mut()) }
    }

    fn get(&self) -> Option<*mut c_void> {
        Some(self.address.load(Ordering::Relaxed)).filter(|address| !address.is_null())
    }
}

static WRITE: Function = Function::named(c"write");
static WRITEV: Function = Function::named(c"writev");
static SEND: Function = Function::named(c"send");
static SENDTO: Function = Function::named(c"sendto");
static SENDMSG: Function = Function::named(c"sendmsg");

/// dlsym(3), where there is one. It is asked for weakly, which the language cannot say: a program without it would not start.
fn dlsym() -> Option<unsafe extern "C" fn(usize, *const c_char) -> *mut c_void> {
    let address: *mut c_void;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads this library's entry for the symbol, which the dynamic linker has filled.
    unsafe {
        asm!(
            ".weak dlsym",
            "mov {}, qword ptr [rip + dlsym@GOTPCREL]",
            out(reg) address,
            options(nostack, pure, readonly, preserves_flags),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            ".weak dlsym",
            "adrp {0}, :got:dlsym",
            "ldr {0}, [{0}, :got_lo12:dlsym]",
            out(reg) address,
            options(nostack, pure, readonly, preserves_flags),
        );
    }
    // SAFETY: null, which is `None`, or the function of that name.
    unsafe { core::mem::transmute(address) }
}

/// Finds them. Called once, before `main`.
pub(crate) fn find() {
    let Some(dlsym) = dlsym() else {
        return;
    };
    for function in [&WRITE, &WRITEV, &SEND, &SENDTO, &SENDMSG] {
        // SAFETY: the name is terminated.
        let address = unsafe { dlsym(RTLD_NEXT, function.name.as_ptr()) };
        function.address.store(address, Ordering::Relaxed);
    }
}

/// write(2).
///
/// # Safety
/// As for write(2).
#[inline]
pub(crate) unsafe fn write(fd: Fd, buffer: *const c_void, len: usize) -> isize {
    match WRITE.get() {
        Some(function) => {
            // SAFETY: it is what dlsym(3) found by this name.
            let function: unsafe extern "C" fn(Fd, *const c_void, usize) -> isize =
                unsafe { core::mem::transmute(function) };
            // SAFETY: the caller's promise.
            unsafe { function(fd, buffer, len) }
        }
        // SAFETY: the caller's promise.
        None => answer(unsafe { forward(number::WRITE, [fd as usize, buffer as usize, len, 0, 0]) }) as isize,
    }
}

/// writev(2).
///
/// # Safety
/// As for writev(2).
#[inline]
pub(crate) unsafe fn writev(fd: Fd, slices: *const Slice, count: i32) -> isize {
    match WRITEV.get() {
        Some(function) => {
            // SAFETY: it is what dlsym(3) found by this name.
            let function: unsafe extern "C" fn(Fd, *const Slice, i32) -> isize =
                unsafe { core::mem::transmute(function) };
            // SAFETY: the caller's promise.
            unsafe { function(fd, slices, count) }
        }
        // SAFETY: the caller's promise.
        None => {
            answer(unsafe { forward(number::WRITEV, [fd as usize, slices as usize, count as usize, 0, 0]) })
                as isize
        }
    }
}

/// send(2).
///
/// # Safety
/// As for send(2).
#[inline]
pub(crate) unsafe fn send(fd: Fd, buffer: *const c_void, len: usize, flags: i32) -> isize {
    match SEND.get() {
        Some(function) => {
            // SAFETY: it is what dlsym(3) found by this name.
            let function: unsafe extern "C" fn(Fd, *const c_void, usize, i32) -> isize =
                unsafe { core::mem::transmute(function) };
            // SAFETY: the caller's promise.
            unsafe { function(fd, buffer, len, flags) }
        }
        // SAFETY: the caller's promise; without an address, sendto(2) is send(2).
        None => unsafe { sendto(fd, buffer, len, flags, core::ptr::null(), 0) },
    }
}

/// sendto(2).
///
/// # Safety
/// As for sendto(2).
#[inline]
pub(crate) unsafe fn sendto(
    fd: Fd,
    buffer: *const c_void,
    len: usize,
    flags: i32,
    to: *const c_void,
    to_len: u32,
) -> isize {
    match SENDTO.get() {
        Some(function) => {
            // SAFETY: it is what dlsym(3) found by this name.
            let function: unsafe extern "C" fn(Fd, *const c_void, usize, i32, *const c_void, u32) -> isize =
                unsafe { core::mem::transmute(function) };
            // SAFETY: the caller's promise.
            unsafe { function(fd, buffer, len, flags, to, to_len) }
        }
        // SAFETY: the caller's promise.
        None => answer(unsafe {
            let arguments = [fd as usize, buffer as usize, len, flags as usize, to as usize, to_len as usize];
            forward_six(number::SENDTO, arguments)
        }) as isize,
    }
}

/// sendmsg(2).
///
/// # Safety
/// As for sendmsg(2).
#[inline]
pub(crate) unsafe fn sendmsg(fd: Fd, message: *const Message, flags: i32) -> isize {
    match SENDMSG.get() {
        Some(function) => {
            // SAFETY: it is what dlsym(3) found by this name.
            let function: unsafe extern "C" fn(Fd, *const Message, i32) -> isize =
                unsafe { core::mem::transmute(function) };
            // SAFETY: the caller's promise.
            unsafe { function(fd, message, flags) }
        }
        // SAFETY: the caller's promise.
        None => {
            answer(unsafe { forward(number::SENDMSG, [fd as usize, message as usize, flags as usize, 0, 0]) })
                as isize
        }
    }
}
