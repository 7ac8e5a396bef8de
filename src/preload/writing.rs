//! The functions of libc with which a program writes: while its launch drains, a response of HTTP tells its client to
//! leave.
//!
//! Whether these bytes are one, and what is sent then, is told in `closing`. In all other cases it is the program's own
//! call, and what lies before it is a look at the page that tells whether the launch drains.

use core::ffi::c_void;
use core::slice;

use crate::abi;
use crate::closing;
use crate::draining;
use crate::libc;
use crate::syscalls::{Fd, Message, Slice, is_readable};

/// As many buffers as a call may have: UIO_MAXIOV.
const MOST_BUFFERS: usize = 1024;

/// The flags with which a call sends as any other does.
const PLAIN: i32 = abi::MSG_DONTWAIT | abi::MSG_NOSIGNAL | abi::MSG_MORE | abi::MSG_EOR;

/// write(2).
///
/// # Safety
/// As for write(2): `buffer` must be valid for reads of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: Fd, buffer: *const c_void, len: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        if draining::is_under_way()
            && let Some(sent) = one(fd, buffer, len, 0)
        {
            return sent;
        }
        libc::write(fd, buffer, len)
    }
}

/// writev(2).
///
/// # Safety
/// As for writev(2): `slices` must be valid for reads of `count` buffers, and they for reads of their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: Fd, slices: *const Slice, count: i32) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        if draining::is_under_way()
            && let Ok(count) = usize::try_from(count)
            && let Some(sent) = several(fd, slices, count, 0)
        {
            return sent;
        }
        libc::writev(fd, slices, count)
    }
}

/// send(2).
///
/// # Safety
/// As for send(2): `buffer` must be valid for reads of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(fd: Fd, buffer: *const c_void, len: usize, flags: i32) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        if draining::is_under_way()
            && let Some(sent) = one(fd, buffer, len, flags)
        {
            return sent;
        }
        libc::send(fd, buffer, len, flags)
    }
}

/// sendto(2).
///
/// # Safety
/// As for sendto(2): `buffer` must be valid for reads of `len` bytes, and `to` null or valid for those of `to_len`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    fd: Fd,
    buffer: *const c_void,
    len: usize,
    flags: i32,
    to: *const c_void,
    to_len: u32,
) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        if draining::is_under_way()
            && to.is_null()
            && let Some(sent) = one(fd, buffer, len, flags)
        {
            return sent;
        }
        libc::sendto(fd, buffer, len, flags, to, to_len)
    }
}

/// sendmsg(2).
///
/// # Safety
/// As for sendmsg(2): `message` and all that it points to must be valid for reads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: Fd, message: *const Message, flags: i32) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        if draining::is_under_way()
            && is_readable(message, size_of::<Message<'_>>())
            && let Some((slices, count)) = message.as_ref().and_then(Message::bare)
            && let Some(sent) = several(fd, slices, count, flags)
        {
            return sent;
        }
        libc::sendmsg(fd, message, flags)
    }
}

/// # Safety
/// `buffer` must be valid for reads of `len` bytes.
unsafe fn one(fd: Fd, buffer: *const c_void, len: usize, flags: i32) -> Option<isize> {
    if buffer.is_null() || flags & !PLAIN != 0 {
        return None;
    }
    // SAFETY: the caller's promise; it is used until this call returns.
    let buffers = [unsafe { Slice::of(buffer, len) }];
    closing::send(fd, &buffers, flags)
}

/// # Safety
/// `slices` must be valid for reads of `count` buffers, and they for reads of their lengths.
unsafe fn several(fd: Fd, slices: *const Slice, count: usize, flags: i32) -> Option<isize> {
    if !slices.is_aligned() || count > MOST_BUFFERS || flags & !PLAIN != 0 {
        return None;
    }
    if count == 0 || !is_readable(slices, count * size_of::<Slice>()) {
        return None;
    }
    // SAFETY: the caller's promise, as far as they are there.
    closing::send(fd, unsafe { slice::from_raw_parts(slices, count) }, flags)
}
