//! sendmsg(2) and recvmsg(2): one record a call, with at most one descriptor beside it.

use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr::null_mut;

use super::message::{Message, Slice};
use super::{Fd, Owned, Result, call};
use crate::abi::{self, number};

/// A `struct cmsghdr` with one descriptor: as large as CMSG_SPACE says.
#[repr(C)]
struct Rights {
    len: usize,
    level: i32,
    kind: i32,
    fd: Fd,
}

impl Rights {
    /// CMSG_LEN for one descriptor. With no more than that, the kernel cannot pass two.
    const LEN: usize = offset_of!(Rights, fd) + size_of::<Fd>();

    fn one(fd: Fd) -> Self {
        Self { len: Self::LEN, level: abi::SOL_SOCKET, kind: abi::SCM_RIGHTS, fd }
    }

    fn none() -> Self {
        Self { len: 0, level: 0, kind: 0, fd: -1 }
    }

    /// The descriptor that the kernel put here, if it did: what stands there beside another kind of message is no
    /// descriptor, and to own it would be to close somebody else's.
    fn passed(&self) -> Option<Owned> {
        let came = self.len == Self::LEN && self.level == abi::SOL_SOCKET && self.kind == abi::SCM_RIGHTS;
        came.then(|| Owned(self.fd))
    }
}

/// Sends one record, with a duplicate of `passed` if there is one. Never raises SIGPIPE.
pub(crate) fn send(fd: Fd, record: &[u8], passed: Option<Fd>, flags: i32) -> Result<()> {
    let mut rights = passed.map(Rights::one);
    let control: *mut core::ffi::c_void =
        rights.as_mut().map_or(null_mut(), |rights| (&raw mut *rights).cast());
    // SAFETY: the record is borrowed until the call returns.
    let slice = unsafe { Slice::of(record.as_ptr().cast(), record.len()) };
    let control_len = if control.is_null() { 0 } else { Rights::LEN };
    let message = Message { control, control_len, ..Message::of(core::slice::from_ref(&slice)) };
    let flags = flags | abi::MSG_NOSIGNAL;
    // SAFETY: `message` and what it points to live until the call returns; the kernel only reads them.
    unsafe { call(number::SENDMSG, [fd as usize, &raw const message as usize, flags as usize, 0, 0]) }
        .map(drop)
}

/// Receives one record: its length, and the descriptor that came with it, if there was room for it in the
/// descriptor table.
pub(crate) fn receive(fd: Fd, buffer: &mut [u8], flags: i32) -> Result<(usize, Option<Owned>)> {
    let mut rights = Rights::none();
    let len = receive_with(fd, buffer, &raw mut rights, Rights::LEN, flags)?;
    Ok((len, rights.passed()))
}

/// Receives one record without its descriptor.
pub(crate) fn receive_bytes(fd: Fd, buffer: &mut [u8], flags: i32) -> Result<usize> {
    receive_with(fd, buffer, null_mut(), 0, flags)
}

fn receive_with(
    fd: Fd,
    buffer: &mut [u8],
    control: *mut Rights,
    control_len: usize,
    flags: i32,
) -> Result<usize> {
    // SAFETY: the buffer is borrowed until the call returns.
    let mut slice = unsafe { Slice::of(buffer.as_mut_ptr().cast(), buffer.len()) };
    let mut message = Message {
        name: null_mut(),
        name_len: 0,
        slices: &raw mut slice,
        slice_count: 1,
        control: control.cast(),
        control_len,
        flags: 0,
        lent: PhantomData,
    };
    // SAFETY: `message` and what it points to live until the call returns; the kernel writes at most `len` bytes
    // to the borrowed buffer and `control_len` to `control`, which the two callers above keep alive.
    unsafe { call(number::RECVMSG, [fd as usize, &raw mut message as usize, flags as usize, 0, 0]) }
}
