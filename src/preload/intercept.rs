//! The functions of libc that the shim stands in for.
//!
//! Each makes the program's own call wherever that does no harm, and repairs the outcome only if it failed or
//! looks wrong and the descriptor is a channel. What a channel is, and does, is told in `channel` and `attach`.

use core::ffi::c_void;
use core::slice;

use crate::abi::{self, number};
use crate::address::{self, Sockaddr};
use crate::attach::{self, Attached};
use crate::channel;
use crate::options;
use crate::settings;
use crate::syscalls::{self as sys, Errno, Fd, Result, forward};
use crate::wire::{Endpoint, FromWorker};

unsafe extern "C" {
    /// Where the calling thread's `errno` is, in glibc and musl.
    safe fn __errno_location() -> *mut i32;
}

/// A result in the manner of libc: -1 and `errno`.
fn answer(result: Result<i32>) -> i32 {
    result.unwrap_or_else(|Errno(errno)| {
        // SAFETY: libc gives a valid pointer, for this thread alone.
        unsafe { *__errno_location() = errno };
        -1
    })
}

/// bind(2): a TCP socket on a served port becomes a channel.
///
/// # Safety
/// As for bind(2): `address` must be valid for reads of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bind(fd: Fd, address: *const u8, len: u32) -> i32 {
    // SAFETY: the caller's promise.
    let attached = match unsafe { served_address(fd, address, len) } {
        Some(endpoint) => attach::attach(fd, endpoint),
        None => Ok(Attached::NotServed),
    };
    answer(match attached {
        Ok(Attached::Yes) => Ok(0),
        // SAFETY: the program's own arguments.
        Ok(Attached::NotServed) => unsafe {
            forward(number::BIND, [fd as usize, address as usize, len as usize, 0, 0])
        },
        Err(errno) => Err(errno),
    })
}

/// The address, if it is the primary's to serve.
///
/// # Safety
/// `address` must be null or valid for reads of `len` bytes.
unsafe fn served_address(fd: Fd, address: *const u8, len: u32) -> Option<Endpoint> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller's promise, for no more bytes than `len`.
    let bytes = unsafe { slice::from_raw_parts(address, (len as usize).min(address::IN6_LEN)) };
    let endpoint = address::read(bytes).filter(|endpoint| settings::serves(endpoint.port()))?;
    let option = |name| sys::getsockopt_int(fd, abi::SOL_SOCKET, name).ok();
    let is_tcp = option(abi::SO_TYPE)? == abi::SOCK_STREAM
        && matches!(option(abi::SO_PROTOCOL)?, abi::IPPROTO_TCP | abi::IPPROTO_MPTCP)
        && option(abi::SO_DOMAIN)? == i32::from(address::family(&endpoint));
    is_tcp.then_some(endpoint)
}

/// listen(2): on a channel, tells the primary.
#[unsafe(no_mangle)]
pub extern "C" fn listen(fd: Fd, backlog: i32) -> i32 {
    // SAFETY: no pointers.
    let result = unsafe { forward(number::LISTEN, [fd as usize, backlog as usize, 0, 0, 0]) };
    answer(match result {
        Err(_) if channel::name(fd).is_some() => {
            channel::listen(fd);
            Ok(0)
        }
        result => result,
    })
}

/// accept(2): on a channel, takes what the primary sent.
///
/// # Safety
/// As for accept(2): `address` must be null, or valid for writes of as many bytes as `len` points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept(fd: Fd, address: *mut u8, len: *mut u32) -> i32 {
    let arguments = [fd as usize, address as usize, len as usize, 0, 0];
    // SAFETY: the caller's promise; the program's own arguments.
    answer(unsafe { accept_or_take(fd, address, len, 0, || forward(number::ACCEPT, arguments)) })
}

/// accept4(2): on a channel, takes what the primary sent.
///
/// # Safety
/// As for [`accept`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn accept4(fd: Fd, address: *mut u8, len: *mut u32, flags: i32) -> i32 {
    let arguments = [fd as usize, address as usize, len as usize, flags as usize, 0];
    // SAFETY: the caller's promise; the program's own arguments.
    answer(unsafe { accept_or_take(fd, address, len, flags, || forward(number::ACCEPT4, arguments)) })
}

/// Asks for the name first: it costs a tenth of an accept that fails.
///
/// # Safety
/// As for [`accept`].
unsafe fn accept_or_take(
    fd: Fd,
    address: *mut u8,
    len: *mut u32,
    flags: i32,
    real: impl FnOnce() -> Result<i32>,
) -> Result<i32> {
    let Some(name) = channel::name(fd) else {
        return real();
    };
    let (connection, client) = channel::accept(fd, &name, flags)?;
    let client = address::write(&address::as_seen_by(&name.address, client));
    // SAFETY: the caller's promise.
    unsafe { fill(address, len, &client) };
    Ok(connection)
}

/// Gives the program an address as the kernel does: cut to its buffer, with the length that it should have had.
///
/// # Safety
/// `to` and `len` must be null, or `to` valid for writes of as many bytes as `len` points to.
unsafe fn fill(to: *mut u8, len: *mut u32, address: &Sockaddr) {
    if to.is_null() || len.is_null() {
        return;
    }
    let bytes = address.bytes();
    // SAFETY: the caller's promise; no more is written than fits.
    unsafe {
        let room = (*len as usize).min(bytes.len());
        to.copy_from_nonoverlapping(bytes.as_ptr(), room);
        *len = bytes.len() as u32;
    }
}

/// getsockname(2): a channel has the address that the server asked for.
///
/// # Safety
/// As for getsockname(2): `address` must be valid for writes of as many bytes as `len` points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockname(fd: Fd, address: *mut u8, len: *mut u32) -> i32 {
    let arguments = [fd as usize, address as usize, len as usize, 0, 0];
    // SAFETY: the caller's promise: the kernel found both pointers valid before they are read.
    unsafe {
        let room = if len.is_null() { 0 } else { *len };
        let result = forward(number::GETSOCKNAME, arguments);
        if result.is_ok()
            && may_be_channel(address, room)
            && let Some(name) = channel::name(fd)
        {
            *len = room;
            fill(address, len, &address::write(&name.address));
        }
        answer(result)
    }
}

/// getpeername(2): a channel has no peer, as a listener has none.
///
/// # Safety
/// As for [`getsockname`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getpeername(fd: Fd, address: *mut u8, len: *mut u32) -> i32 {
    let arguments = [fd as usize, address as usize, len as usize, 0, 0];
    // SAFETY: the caller's promise: the kernel found both pointers valid before they are read.
    unsafe {
        let room = if len.is_null() { 0 } else { *len };
        let result = forward(number::GETPEERNAME, arguments);
        if result.is_ok() && may_be_channel(address, room) && channel::name(fd).is_some() {
            return answer(Err(Errno(abi::ENOTCONN)));
        }
        answer(result)
    }
}

/// Whether an address that the kernel gave is a Unix socket's, or too short to tell.
///
/// # Safety
/// `address` must be valid for reads of `room` bytes.
unsafe fn may_be_channel(address: *const u8, room: u32) -> bool {
    // SAFETY: the caller's promise, for two bytes at most.
    room < 2 || unsafe { address.cast::<u16>().read_unaligned() } == abi::AF_UNIX
}

/// getsockopt(2): a channel answers as a TCP listener.
///
/// # Safety
/// As for getsockopt(2): `value` must be valid for writes of as many bytes as `len` points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(fd: Fd, level: i32, name: i32, value: *mut c_void, len: *mut u32) -> i32 {
    let arguments = [fd as usize, level as usize, name as usize, value as usize, len as usize];
    // SAFETY: the program's own arguments.
    let result = unsafe { forward(number::GETSOCKOPT, arguments) };
    // SAFETY: the caller's promise; after a call that succeeded, the kernel found both pointers valid.
    unsafe {
        match result {
            Ok(_) if level == abi::SOL_SOCKET && *len == 4 => {
                let value = value.cast::<i32>();
                if options::betrays_channel(level, name, value.read_unaligned())
                    && let Some(channel) = channel::name(fd)
                {
                    value.write_unaligned(options::answer_of_listener(fd, &channel, name));
                }
                answer(result)
            }
            Err(Errno(abi::EOPNOTSUPP)) if options::is_internet(level) && channel::name(fd).is_some() => {
                answer(give_zero(value.cast(), len))
            }
            _ => answer(result),
        }
    }
}

/// The value of an option of TCP or IP on a channel: what was set there is known to the primary alone, so each
/// has its zero, an `int`.
///
/// # Safety
/// `value` and `len` must be null, or `value` valid for writes of as many bytes as `len` points to.
unsafe fn give_zero(value: *mut u8, len: *mut u32) -> Result<i32> {
    if value.is_null() || len.is_null() {
        return Err(Errno(abi::EOPNOTSUPP));
    }
    // SAFETY: the caller's promise; no more is written than fits.
    unsafe {
        *len = (*len).min(4);
        value.write_bytes(0, *len as usize);
    }
    Ok(0)
}

/// setsockopt(2): on a channel, tells the primary, from whose socket the connections inherit.
///
/// # Safety
/// As for setsockopt(2): `value` must be valid for reads of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(fd: Fd, level: i32, name: i32, value: *const c_void, len: u32) -> i32 {
    let arguments = [fd as usize, level as usize, name as usize, value as usize, len as usize];
    // SAFETY: the program's own arguments.
    let result = unsafe { forward(number::SETSOCKOPT, arguments) };
    let tell = match result {
        Ok(_) => options::is_inherited(level, name),
        Err(Errno(errno)) => errno == abi::EOPNOTSUPP && options::is_internet(level),
    };
    let pass_over = result.is_err() && options::shares_port(level, name);
    if !(tell || pass_over) || value.is_null() || channel::name(fd).is_none() {
        return answer(result);
    }
    if pass_over {
        return 0;
    }
    // SAFETY: the caller's promise, for no more bytes than `len`; a message carries no more than eight.
    let value = unsafe { slice::from_raw_parts(value.cast(), len.min(9) as usize) };
    let Some(option) = options::to_report(level, name, value) else {
        return answer(result);
    };
    channel::say(fd, &FromWorker::SetOption(option));
    0
}

/// shutdown(2): a channel stays open, since it is shared by all processes of the worker and could not be opened
/// again.
#[unsafe(no_mangle)]
pub extern "C" fn shutdown(fd: Fd, how: i32) -> i32 {
    if channel::name(fd).is_some() {
        return 0;
    }
    // SAFETY: no pointers.
    answer(unsafe { forward(number::SHUTDOWN, [fd as usize, how as usize, 0, 0, 0]) })
}
