//! Files, folders and epoll instances: what `/proc` tells of this process's descriptors, and changing it; and files in memory.

use core::ffi::CStr;

use super::{Fd, Owned, Result, call, call_six};
use crate::abi::{self, number};

/// Opens what is at `path`, below the folder `at` unless it is absolute, for reading.
pub(crate) fn open(at: Option<&Owned>, path: &CStr, flags: i32) -> Result<Owned> {
    let at = at.map_or(abi::AT_FDCWD, Owned::get);
    let flags = flags | abi::O_CLOEXEC;
    // SAFETY: the kernel reads a terminated string, which the caller lends.
    let fd = unsafe { call(number::OPENAT, [at as usize, path.as_ptr() as usize, flags as usize, 0, 0]) }?;
    Ok(Owned(fd as Fd))
}

/// read(2): the part of `buffer` that it filled; empty at the end.
pub(crate) fn read<'a>(file: &Owned, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    fill(number::READ, file, buffer)
}

/// mmap(2): the first bytes of a file, for reading, as whoever writes the file changes them. They stay for as long as the process
/// lives.
pub(crate) fn map_shared(file: &Owned, len: usize) -> Result<*mut u8> {
    let (protection, kind) = (abi::PROT_READ as usize, abi::MAP_SHARED as usize);
    // SAFETY: the kernel chooses a place where nothing is.
    let address = unsafe { call_six(number::MMAP, [0, len, protection, kind, file.get() as usize, 0]) }?;
    Ok(core::ptr::with_exposed_provenance_mut(address))
}

/// getdents64(2): some entries of a folder; none at the end.
pub(crate) fn getdents<'a>(folder: &Owned, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    fill(number::GETDENTS64, folder, buffer)
}

fn fill<'a>(number: usize, from: &Owned, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let arguments = [from.get() as usize, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0];
    // SAFETY: for both calls, the kernel writes at most `len` bytes to the borrowed buffer.
    let len = unsafe { call(number, arguments) }?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// readlinkat(2): the target of a symbolic link, or as much of it as fits.
pub(crate) fn readlink<'a>(folder: &Owned, name: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let (to, room) = (buffer.as_mut_ptr() as usize, buffer.len());
    let arguments = [folder.get() as usize, name.as_ptr() as usize, to, room, 0];
    // SAFETY: the kernel reads a terminated string and writes at most `room` bytes, both borrowed.
    let len = unsafe { call(number::READLINKAT, arguments) }?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// `struct epoll_event`: on x86_64 as it is for 32-bit programs.
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    pub(crate) events: u32,
    pub(crate) data: u64,
}

/// What epoll_ctl(2) is to do.
#[derive(Clone, Copy)]
pub(crate) enum Change {
    Add(Watch),
    Delete,
}

pub(crate) fn epoll_ctl(epoll: Fd, fd: Fd, change: Change) -> Result<()> {
    let (operation, watch) = match change {
        Change::Add(watch) => (abi::EPOLL_CTL_ADD, watch),
        Change::Delete => (abi::EPOLL_CTL_DEL, Watch { events: 0, data: 0 }),
    };
    let arguments = [epoll as usize, operation as usize, fd as usize, &raw const watch as usize, 0];
    // SAFETY: the kernel reads one epoll_event.
    unsafe { call(number::EPOLL_CTL, arguments) }.map(drop)
}
