//! The system calls that the shim makes, without libc: safe functions over borrowed buffers, and the program's
//! own calls, passed to the kernel as they came.
//!
//! It decides nothing and never touches `errno`. Calling the kernel directly keeps the shim free of any libc's
//! own idea of these structures, and of its wrappers, some of which are the very functions that it replaces.

mod files;
mod message;
mod records;

use core::arch::asm;

use crate::abi::{self, number};

pub(crate) use files::{Change, Watch, epoll_ctl, getdents, map_shared, open, read, readlink};
pub(crate) use message::{Message, Slice, gather};
pub(crate) use records::{receive, receive_bytes, send};

/// A descriptor's number, as the program passes it.
pub(crate) type Fd = i32;

/// What a system call failed with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

pub(crate) type Result<T> = core::result::Result<T, Errno>;

/// Makes a system call.
///
/// # Safety
/// As for the system call `number`: each pointer among the arguments must be valid for what the kernel does
/// with it.
unsafe fn call(number: usize, [a, b, c, d, e]: [usize; 5]) -> Result<usize> {
    // SAFETY: the caller's promise.
    unsafe { call_six(number, [a, b, c, d, e, 0]) }
}

/// Makes a system call that takes one argument more.
///
/// # Safety
/// As for [`call`].
unsafe fn call_six(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> Result<usize> {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's calling convention for x86_64: it overwrites rax, rcx and r11 and nothing else of this
    // process but what the arguments point to, for which the caller answers.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the kernel's calling convention for aarch64: it overwrites x0 and nothing else of this process but
    // what the arguments point to, for which the caller answers.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    match result {
        -4095..0 => Err(Errno(-(result as i32))),
        _ => Ok(result as usize),
    }
}

/// A call of the program, made for it.
///
/// # Safety
/// The arguments are the program's own, for a call that takes at most five: it answers for its pointers.
pub(crate) unsafe fn forward(number: usize, arguments: [usize; 5]) -> Result<i32> {
    // SAFETY: see above.
    unsafe { call(number, arguments) }.map(|result| result as i32)
}

/// A call of the program that takes six.
///
/// # Safety
/// As for [`forward`].
pub(crate) unsafe fn forward_six(number: usize, arguments: [usize; 6]) -> Result<i32> {
    // SAFETY: see above.
    unsafe { call_six(number, arguments) }.map(|result| result as i32)
}

/// A descriptor that is closed when it is dropped.
pub(crate) struct Owned(Fd);

impl Owned {
    pub(crate) fn get(&self) -> Fd {
        self.0
    }

    /// Gives the descriptor away: it stays open.
    pub(crate) fn release(self) -> Fd {
        let fd = self.0;
        core::mem::forget(self);
        fd
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        close(self.0);
    }
}

pub(crate) fn close(fd: Fd) {
    // SAFETY: no pointers. The descriptor is one that the shim opened or received.
    let _ = unsafe { call(number::CLOSE, [fd as usize, 0, 0, 0, 0]) };
}

pub(crate) fn socket(domain: u16, kind: i32) -> Result<Owned> {
    // SAFETY: no pointers.
    let fd = unsafe { call(number::SOCKET, [domain.into(), kind as usize, 0, 0, 0]) }?;
    Ok(Owned(fd as Fd))
}

/// bind(2) to the first bytes of `address`.
pub(crate) fn bind(fd: &Owned, address: &[u8]) -> Result<()> {
    let arguments = [fd.0 as usize, address.as_ptr() as usize, address.len(), 0, 0];
    // SAFETY: the kernel reads `len` bytes of the borrowed slice.
    unsafe { call(number::BIND, arguments) }.map(drop)
}

pub(crate) fn connect(fd: &Owned, address: &[u8]) -> Result<()> {
    let arguments = [fd.0 as usize, address.as_ptr() as usize, address.len(), 0, 0];
    // SAFETY: the kernel reads `len` bytes of the borrowed slice.
    unsafe { call(number::CONNECT, arguments) }.map(drop)
}

/// Makes `to` another name of what `from` names.
pub(crate) fn dup3(from: &Owned, to: Fd, flags: i32) -> Result<()> {
    // SAFETY: no pointers. `to` is the program's and stays open throughout.
    unsafe { call(number::DUP3, [from.0 as usize, to as usize, flags as usize, 0, 0]) }.map(drop)
}

pub(crate) fn fcntl(fd: Fd, command: i32, argument: i32) -> Result<i32> {
    // SAFETY: none of the commands in use takes a pointer.
    let result = unsafe { call(number::FCNTL, [fd as usize, command as usize, argument as usize, 0, 0]) };
    result.map(|value| value as i32)
}

/// A duplicate, close-on-exec, with the first free number from `lowest` on.
pub(crate) fn duplicate(fd: &Owned, lowest: i32) -> Result<Owned> {
    fcntl(fd.0, abi::F_DUPFD_CLOEXEC, lowest).map(Owned)
}

/// `struct f_owner_ex`: who gets a signal when something happens at a descriptor (fcntl(2)).
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct SignalOwner {
    kind: i32,
    id: i32,
}

pub(crate) fn signal_owner(fd: Fd) -> Result<SignalOwner> {
    let mut owner = SignalOwner { kind: 0, id: 0 };
    let arguments = [fd as usize, abi::F_GETOWN_EX as usize, &raw mut owner as usize, 0, 0];
    // SAFETY: the kernel writes one f_owner_ex.
    unsafe { call(number::FCNTL, arguments) }.map(|_| owner)
}

pub(crate) fn set_signal_owner(fd: &Owned, owner: SignalOwner) -> Result<()> {
    let arguments = [fd.0 as usize, abi::F_SETOWN_EX as usize, &raw const owner as usize, 0, 0];
    // SAFETY: the kernel reads one f_owner_ex.
    unsafe { call(number::FCNTL, arguments) }.map(drop)
}

/// How many descriptors this process may have: RLIMIT_NOFILE, the soft limit.
pub(crate) fn descriptor_limit() -> Result<u64> {
    let mut limits = [0_u64; 2];
    let arguments = [0, abi::RLIMIT_NOFILE as usize, 0, limits.as_mut_ptr() as usize, 0];
    // SAFETY: process 0 is this one; there are no new limits, and the kernel writes the two old ones.
    unsafe { call(number::PRLIMIT64, arguments) }?;
    let [soft, _] = limits;
    Ok(soft)
}

/// getsockname(2): the part of `buffer` that it filled.
pub(crate) fn getsockname(fd: Fd, buffer: &mut [u8; 128]) -> Result<&[u8]> {
    let mut len = buffer.len() as u32;
    let arguments = [fd as usize, buffer.as_mut_ptr() as usize, &raw mut len as usize, 0, 0];
    // SAFETY: the kernel writes at most `len` bytes to the borrowed buffer, and the length to `len`.
    unsafe { call(number::GETSOCKNAME, arguments) }?;
    Ok(buffer.get(..len as usize).unwrap_or(buffer))
}

/// getsockopt(2): how many bytes of `value` it filled.
pub(crate) fn getsockopt(fd: Fd, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
    let mut len = value.len() as u32;
    let arguments =
        [fd as usize, level as usize, name as usize, value.as_mut_ptr() as usize, &raw mut len as usize];
    // SAFETY: the kernel writes at most `len` bytes to the borrowed slice, and the length to `len`.
    unsafe { call(number::GETSOCKOPT, arguments) }?;
    Ok(len as usize)
}

/// A number that no other socket of this machine has had: SO_COOKIE.
pub(crate) fn cookie(fd: Fd) -> Result<u64> {
    let mut value = [0; 8];
    getsockopt(fd, abi::SOL_SOCKET, abi::SO_COOKIE, &mut value)?;
    Ok(u64::from_ne_bytes(value))
}

/// getsockopt(2) for an option whose value is an `int`.
pub(crate) fn getsockopt_int(fd: Fd, level: i32, name: i32) -> Result<i32> {
    let mut value = [0; 4];
    getsockopt(fd, level, name, &mut value)?;
    Ok(i32::from_ne_bytes(value))
}

/// ioctl(2) for a number of bytes: how many are not read, or not sent.
pub(crate) fn ioctl_count(fd: Fd, request: usize) -> Result<i32> {
    let mut count = 0_i32;
    // SAFETY: both requests that are in use write one int.
    unsafe { call(number::IOCTL, [fd as usize, request, &raw mut count as usize, 0, 0]) }.map(|_| count)
}

/// Ends a connection in both directions.
pub(crate) fn shutdown(fd: Fd) {
    // SAFETY: no pointers.
    let _ = unsafe { call(number::SHUTDOWN, [fd as usize, abi::SHUT_RDWR as usize, 0, 0, 0]) };
}

pub(crate) fn setsockopt(fd: Fd, level: i32, name: i32, value: &[u8]) -> Result<()> {
    let arguments = [fd as usize, level as usize, name as usize, value.as_ptr() as usize, value.len()];
    // SAFETY: the kernel reads `len` bytes of the borrowed slice.
    unsafe { call(number::SETSOCKOPT, arguments) }.map(drop)
}

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// The monotonic clock, in nanoseconds.
pub(crate) fn monotonic() -> u64 {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    let arguments = [abi::CLOCK_MONOTONIC as usize, &raw mut now as usize, 0, 0, 0];
    // SAFETY: the kernel writes one timespec to `now`.
    let _ = unsafe { call(number::CLOCK_GETTIME, arguments) };
    (now.seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(now.nanoseconds as u64)
}

/// Sleeps until the time is over or a signal was handled.
pub(crate) fn pause_milliseconds(milliseconds: i64) {
    let time = Timespec { seconds: 0, nanoseconds: milliseconds * 1_000_000 };
    // SAFETY: the kernel reads one timespec; there is no second pointer.
    let _ = unsafe { call(number::NANOSLEEP, [&raw const time as usize, 0, 0, 0, 0]) };
}

/// Waits until `fd` can be written to, a signal was handled, or the time is over.
pub(crate) fn wait_writable(fd: Fd, milliseconds: i64) {
    #[repr(C)]
    struct PollFd {
        fd: Fd,
        events: i16,
        returned: i16,
    }
    let mut poll = PollFd { fd, events: abi::POLLOUT, returned: 0 };
    let time = Timespec { seconds: milliseconds / 1000, nanoseconds: milliseconds % 1000 * 1_000_000 };
    let arguments = [&raw mut poll as usize, 1, &raw const time as usize, 0, 0];
    // SAFETY: the kernel reads and writes one pollfd and one timespec; there is no signal mask.
    let _ = unsafe { call(number::PPOLL, arguments) };
}

pub(crate) fn getpid() -> i32 {
    // SAFETY: no pointers.
    unsafe { call(number::GETPID, [0; 5]) }.unwrap_or(0) as i32
}

/// What this process does at a signal: the handler's address, or SIG_DFL or SIG_IGN, and the flags (sigaction(2)).
pub(crate) fn disposition(signal: i32) -> Result<(usize, u64)> {
    // The kernel's `struct sigaction`: handler, flags, restorer, and a mask of 64 signals.
    let mut old = [0_usize; 4];
    let arguments = [signal as usize, 0, old.as_mut_ptr() as usize, 8, 0];
    // SAFETY: there is no new action, and the kernel writes one structure of this size, for a mask of 8 bytes.
    unsafe { call(number::RT_SIGACTION, arguments) }?;
    let [handler, flags, ..] = old;
    Ok((handler, flags as u64))
}

/// The smallest page that the supported processors have, in bytes.
const PAGE: usize = 4096;

/// Whether these bytes can be read: where a program passes an address that leads nowhere, it expects EFAULT. Some do it to find
/// out (libunwind).
pub(crate) fn is_readable<T>(start: *const T, len: usize) -> bool {
    let start = start.addr();
    let Some(end) = start.checked_add(len).filter(|_| start >= PAGE) else { return false };
    (start - start % PAGE..end).step_by(PAGE).all(|page| {
        // Aligned, so that the eight bytes that the kernel reads lie in the page.
        let place = page.max(start) & !7;
        // SAFETY: the kernel reads eight bytes, or fails with EFAULT; no signals are masked in a way that does not exist.
        let outcome = unsafe { call(number::RT_SIGPROCMASK, [usize::MAX, place, 0, 8, 0]) };
        outcome != Err(Errno(abi::EFAULT))
    })
}

/// Whether this process leads its process group.
pub(crate) fn leads_group() -> bool {
    // SAFETY: no pointers.
    let group = unsafe { call(number::GETPGID, [0; 5]) };
    group == Ok(getpid() as usize)
}

/// The path of the file that this process executes, in `buffer`.
pub(crate) fn own_program(buffer: &mut [u8; 256]) -> Result<&[u8]> {
    let path = c"/proc/self/exe";
    let arguments =
        [abi::AT_FDCWD as usize, path.as_ptr() as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0];
    // SAFETY: the path is terminated; the kernel writes at most `len` bytes to the borrowed buffer.
    let len = unsafe { call(number::READLINKAT, arguments) }?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// The arguments of this process, each with a zero byte after it: as many as fit into `buffer`.
pub(crate) fn own_arguments(buffer: &mut [u8]) -> Result<&[u8]> {
    let path = c"/proc/self/cmdline";
    let arguments = [abi::AT_FDCWD as usize, path.as_ptr() as usize, abi::O_CLOEXEC as usize, 0, 0];
    // SAFETY: the path is terminated.
    let file = Owned(unsafe { call(number::OPENAT, arguments) }? as Fd);
    let arguments = [file.get() as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0];
    // SAFETY: the kernel writes at most `len` bytes to the borrowed buffer.
    let len = unsafe { call(number::READ, arguments) }?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// Sends a signal; process 0 is the whole group of the calling one.
pub(crate) fn kill(process: i32, signal: i32) {
    // SAFETY: no pointers.
    let _ = unsafe { call(number::KILL, [process as usize, signal as usize, 0, 0, 0]) };
}
