//! Socket options of a channel: asked of the server's own socket, except where a listener answers otherwise than that
//! socket, which was never bound.
//!
//! It sets nothing on connections: the primary sets options on the public socket, and connections inherit; SO_LINGER comes
//! with each connection.

use core::ffi::c_void;
use core::slice;

use crate::abi::{self, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET, number};
use crate::address;
use crate::channel;
use crate::shadow;
use crate::syscalls::{Errno, Fd, Result, forward};
use crate::wire::{ChannelName, FromWorker, SocketOption};

/// An option, as getsockopt(2) and setsockopt(2) name it.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    pub(crate) level: i32,
    pub(crate) name: i32,
}

/// Whether a channel could have given this answer, an `int` where there is one, and a listener would give another.
/// Whoever is no channel is not asked for its name then.
pub(crate) fn may_be_channels(Name { level, name }: Name, answer: Result<Option<i32>>) -> bool {
    match answer {
        // Unix sockets have no options of other levels.
        Err(Errno(errno)) if level != SOL_SOCKET => errno == abi::EOPNOTSUPP,
        Err(Errno(errno)) => matches!(errno, abi::EOPNOTSUPP | abi::ENOPROTOOPT | abi::EINVAL | abi::EPERM),
        Ok(_) if level != SOL_SOCKET => false,
        Ok(answer) => match (name, answer) {
            (abi::SO_TYPE, Some(value)) => value == abi::SOCK_SEQPACKET,
            (abi::SO_DOMAIN, Some(value)) => value == i32::from(abi::AF_UNIX),
            (abi::SO_PROTOCOL | abi::SO_ACCEPTCONN, Some(value)) => value == 0,
            // A listener without an error says 0 as well.
            (abi::SO_ERROR, Some(value)) => value != 0,
            _ => true,
        },
    }
}

/// getsockopt(2) on a channel.
///
/// # Safety
/// As for getsockopt(2): `value` must be valid for writes of as many bytes as `len` points to.
pub(crate) unsafe fn get(
    fd: Fd,
    channel: &ChannelName,
    option: Name,
    value: *mut c_void,
    len: *mut u32,
) -> Result<i32> {
    let Name { level, name } = option;
    if let Some(answer) = listeners_own(fd, channel, option) {
        // SAFETY: the caller's promise.
        return unsafe { give(answer, value.cast(), len) };
    }
    let arguments = |fd: Fd| [fd as usize, level as usize, name as usize, value as usize, len as usize];
    // SAFETY: the program's own arguments, for another socket.
    let result = shadow::with(channel, |fd| unsafe { forward(number::GETSOCKOPT, arguments(fd)) })?;
    if (level, name) == (IPPROTO_TCP, abi::TCP_INFO) && channel::listens(fd) {
        // SAFETY: the kernel has found both pointers valid, and written as many bytes.
        unsafe {
            if result.is_ok() && *len > 0 {
                value.cast::<u8>().write(abi::TCP_LISTEN);
            }
        }
    }
    result
}

/// What a listener says of itself, and its own socket would not.
fn listeners_own(fd: Fd, channel: &ChannelName, option: Name) -> Option<i32> {
    match (option.level, option.name) {
        (SOL_SOCKET, abi::SO_TYPE) => Some(abi::SOCK_STREAM),
        (SOL_SOCKET, abi::SO_DOMAIN) => Some(address::family(&channel.address).into()),
        // Of connections that come through the primary, it is true for a server that asked for MPTCP too.
        (SOL_SOCKET, abi::SO_PROTOCOL) => Some(IPPROTO_TCP),
        (SOL_SOCKET, abi::SO_ACCEPTCONN) => Some(channel::listens(fd).into()),
        (SOL_SOCKET, abi::SO_ERROR) => Some(0),
        (IPPROTO_IP, abi::IP_PROTOCOL) => Some(channel.address.port().into()),
        _ => None,
    }
}

/// Gives the program an `int` as the kernel does: cut to its buffer.
///
/// # Safety
/// `value` and `len` must be null, or `value` valid for writes of as many bytes as `len` points to.
unsafe fn give(answer: i32, value: *mut u8, len: *mut u32) -> Result<i32> {
    if value.is_null() || len.is_null() {
        return Err(Errno(abi::EFAULT));
    }
    let answer = answer.to_ne_bytes();
    // SAFETY: the caller's promise; no more is written than fits.
    unsafe {
        let room = (*len as usize).min(answer.len());
        value.copy_from_nonoverlapping(answer.as_ptr(), room);
        *len = room as u32;
    }
    Ok(0)
}

/// setsockopt(2) on a channel: on the server's own socket, and the primary is told, from whose sockets connections
/// inherit.
///
/// # Safety
/// As for setsockopt(2): `value` must be valid for reads of `len` bytes.
pub(crate) unsafe fn set(
    fd: Fd,
    channel: &ChannelName,
    option: Name,
    value: *const c_void,
    len: u32,
) -> Result<i32> {
    let Name { level, name } = option;
    if let Some(errno) = refused_by_listener(option, channel::listens(fd)) {
        return Err(errno);
    }
    let arguments = |fd: Fd| [fd as usize, level as usize, name as usize, value as usize, len as usize];
    // SAFETY: the program's own arguments, for another socket.
    let result = shadow::with(channel, |fd| unsafe { forward(number::SETSOCKOPT, arguments(fd)) })?;
    if result.is_err() || value.is_null() {
        return result;
    }
    if level == SOL_SOCKET && matches!(name, abi::SO_RCVTIMEO | abi::SO_RCVTIMEO_NEW) {
        // For so long waits accept, which the channel does.
        // SAFETY: the program's own arguments.
        let _ = unsafe { forward(number::SETSOCKOPT, arguments(fd)) };
    }
    if len as usize <= SocketOption::MAX_LEN {
        // SAFETY: the caller's promise.
        let value = unsafe { slice::from_raw_parts(value.cast(), len as usize) };
        if let Some(option) = SocketOption::new(level, name, value) {
            channel::say(fd, &FromWorker::SetOption(option));
        }
    }
    result
}

/// What cannot be set on a socket any more that is bound, or listens.
fn refused_by_listener(option: Name, listens: bool) -> Option<Errno> {
    match (option.level, option.name) {
        (IPPROTO_IPV6, abi::IPV6_V6ONLY) => Some(Errno(abi::EINVAL)),
        (IPPROTO_TCP, abi::TCP_FASTOPEN_CONNECT) if listens => Some(Errno(abi::EINVAL)),
        (IPPROTO_TCP, abi::TCP_REPAIR | abi::TCP_QUEUE_SEQ) if listens => Some(Errno(abi::EPERM)),
        _ => None,
    }
}
