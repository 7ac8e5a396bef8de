//! `struct iovec` and `struct msghdr`, and sending several buffers at once.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::ptr::null_mut;
use core::slice;

use super::{Fd, Result, call, is_readable};
use crate::abi::number;

/// `struct iovec`: bytes that can be read for as long as this is used. It is what [`of`](Self::of) and whoever takes them from
/// a program answer for; a program may be wrong, so [`is_readable`](Self::is_readable) is asked first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slice {
    base: *mut c_void,
    len: usize,
}

impl Slice {
    pub(crate) const EMPTY: Self = Self { base: null_mut(), len: 0 };

    /// # Safety
    /// `base` must be valid for reads of `len` bytes for as long as the outcome, or a part of it, is used.
    pub(crate) unsafe fn of(base: *const c_void, len: usize) -> Self {
        Self { base: base.cast_mut(), len }
    }

    pub(crate) fn lent(bytes: &'static [u8]) -> Self {
        Self { base: bytes.as_ptr().cast_mut().cast(), len: bytes.len() }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether its first bytes are there, as far as it has as many.
    pub(crate) fn is_readable(&self, len: usize) -> bool {
        let len = len.min(self.len);
        len == 0 || is_readable(self.base, len)
    }

    /// From one offset to another, as far as there is as much.
    pub(crate) fn part(&self, from: usize, to: usize) -> Self {
        let to = to.min(self.len);
        let from = from.min(to);
        Self { base: self.base.wrapping_byte_add(from), len: to - from }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        if self.base.is_null() || self.len == 0 {
            return &[];
        }
        // SAFETY: whoever made it answers for it. No object is longer than `isize::MAX`.
        unsafe { slice::from_raw_parts(self.base.cast(), self.len.min(isize::MAX as usize)) }
    }
}

/// `struct msghdr`, as the kernel has it on 64-bit processors.
#[repr(C)]
pub struct Message<'a> {
    pub(super) name: *mut c_void,
    pub(super) name_len: u32,
    pub(super) slices: *mut Slice,
    pub(super) slice_count: usize,
    pub(super) control: *mut c_void,
    pub(super) control_len: usize,
    pub(super) flags: i32,
    pub(super) lent: PhantomData<&'a [Slice]>,
}

impl<'a> Message<'a> {
    /// One that is only read.
    pub(crate) fn of(slices: &'a [Slice]) -> Self {
        Self {
            name: null_mut(),
            name_len: 0,
            slices: slices.as_ptr().cast_mut(),
            slice_count: slices.len(),
            control: null_mut(),
            control_len: 0,
            flags: 0,
            lent: PhantomData,
        }
    }

    /// Its buffers, if it has nothing else. In musl both lengths have half of the room, and what is beside them means nothing.
    pub(crate) fn bare(&self) -> Option<(*const Slice, usize)> {
        let is_bare = self.name.is_null() && self.control_len as u32 == 0;
        is_bare.then_some((self.slices.cast_const(), self.slice_count as u32 as usize))
    }
}

/// sendmsg(2) with buffers alone.
pub(crate) fn gather(fd: Fd, slices: &[Slice], flags: i32) -> Result<usize> {
    let message = Message::of(slices);
    // SAFETY: the kernel reads the message and the buffers, which whoever made them answers for.
    unsafe { call(number::SENDMSG, [fd as usize, &raw const message as usize, flags as usize, 0, 0]) }
}
