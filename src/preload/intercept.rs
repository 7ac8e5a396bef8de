//! The functions of libc that the shim stands in for.
//!
//! Each makes the program's own call wherever that does no harm, and repairs the outcome only if it failed or
//! looks wrong and the descriptor is a channel. What a channel is, and does, is told in `channel` and `attach`.

use core::ffi::c_void;
use core::ptr::null_mut;
use core::slice;

use crate::abi::{self, number};
use crate::address::{self, Sockaddr};
use crate::attach::{self, Attached};
use crate::channel;
use crate::handlers;
use crate::listening;
use crate::options::{self, Name};
use crate::settings;
use crate::syscalls::{self as sys, Errno, Fd, Result, forward};
use crate::wire::Endpoint;

unsafe extern "C" {
    /// Where the calling thread's `errno` is, in glibc and musl.
    safe fn __errno_location() -> *mut i32;

    /// recvfrom(2), as libc has it.
    fn recvfrom(
        fd: Fd,
        buffer: *mut c_void,
        len: usize,
        flags: i32,
        from: *mut c_void,
        from_len: *mut u32,
    ) -> isize;

    /// sigprocmask(2), as libc has it: of the calling thread alone, and of signals that are not libc's own.
    fn sigprocmask(how: i32, set: *const c_void, old: *mut c_void) -> i32;
}

/// A result in the manner of libc: -1 and `errno`.
pub(crate) fn answer(result: Result<i32>) -> i32 {
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

/// The address, if it may be the primary's to serve.
///
/// # Safety
/// `address` must be null or valid for reads of `len` bytes.
unsafe fn served_address(fd: Fd, address: *const u8, len: u32) -> Option<Endpoint> {
    let len = (len as usize).min(address::IN6_LEN);
    if !sys::is_readable(address, len) {
        return None;
    }
    // SAFETY: the caller's promise, for no more bytes than `len`.
    let bytes = unsafe { slice::from_raw_parts(address, len) };
    let endpoint = address::read(bytes).filter(|endpoint| settings::may_serve(endpoint.port()))?;
    let option = |name| sys::getsockopt_int(fd, abi::SOL_SOCKET, name).ok();
    let is_tcp = option(abi::SO_TYPE)? == abi::SOCK_STREAM
        && matches!(option(abi::SO_PROTOCOL)?, abi::IPPROTO_TCP | abi::IPPROTO_MPTCP)
        && option(abi::SO_DOMAIN)? == i32::from(address::family(&endpoint));
    is_tcp.then_some(endpoint)
}

/// connect(2): to a served port of this machine before the worker listens there, it is refused, as it would be without
/// the primary.
///
/// # Safety
/// As for connect(2): `address` must be valid for reads of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: Fd, address: *const u8, len: u32) -> i32 {
    // SAFETY: the caller's promise.
    let dead_end = unsafe { served_address(fd, address, len) }.and_then(|to| listening::dead_end(&to));
    let to = match &dead_end {
        Some(dead_end) => (dead_end.bytes().as_ptr() as usize, dead_end.bytes().len()),
        None => (address as usize, len as usize),
    };
    // SAFETY: the program's own arguments, or an address that lives until the call returns.
    answer(unsafe { forward(number::CONNECT, [fd as usize, to.0, to.1, 0, 0]) })
}

/// listen(2): on a channel, or on a listening socket that the primary made, tells the primary.
#[unsafe(no_mangle)]
pub extern "C" fn listen(fd: Fd, backlog: i32) -> i32 {
    if listening::begins_on_socket(fd) {
        return 0;
    }
    // SAFETY: no pointers.
    let result = unsafe { forward(number::LISTEN, [fd as usize, backlog as usize, 0, 0, 0]) };
    answer(match result {
        Err(errno) => match channel::name(fd) {
            Some(name) => {
                let listens_already = channel::listens(fd);
                channel::listen(fd);
                if !listens_already {
                    listening::begins(&name);
                }
                Ok(0)
            }
            None => Err(errno),
        },
        done => done,
    })
}

/// recv(2): a listener is not connected, which is how Python's ssl module knows one. What lies in a channel is for accept.
///
/// For all other descriptors it is libc's own call: threads that wait in it can be cancelled (pthreads(7)).
///
/// # Safety
/// As for recv(2): `buffer` must be valid for writes of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recv(fd: Fd, buffer: *mut c_void, len: usize, flags: i32) -> isize {
    if channel::may_be_one(fd) && channel::name(fd).is_some() {
        return answer(Err(Errno(abi::ENOTCONN))) as isize;
    }
    // SAFETY: the program's own arguments; without an address, recvfrom(2) is recv(2).
    unsafe { recvfrom(fd, buffer, len, flags, null_mut(), null_mut()) }
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
    let option = Name { level, name };
    let arguments = [fd as usize, level as usize, name as usize, value as usize, len as usize];
    // SAFETY: the caller's promise; after a call that succeeded, the kernel found both pointers valid.
    unsafe {
        let room = if len.is_null() { 0 } else { *len };
        let result = forward(number::GETSOCKOPT, arguments);
        let said = result.map(|_| (*len == 4).then(|| value.cast::<i32>().read_unaligned()));
        if options::may_be_channels(option, said)
            && let Some(channel) = channel::name(fd)
        {
            if result.is_ok() {
                *len = room;
            }
            return answer(options::get(fd, &channel, option, value, len));
        }
        answer(result)
    }
}

/// setsockopt(2): never on a channel itself, whose options are a Unix socket's: with SO_PASSCRED, say, it would bring no
/// more connections.
///
/// # Safety
/// As for setsockopt(2): `value` must be valid for reads of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(fd: Fd, level: i32, name: i32, value: *const c_void, len: u32) -> i32 {
    let steers = matches!(
        name,
        abi::SO_ATTACH_REUSEPORT_CBPF | abi::SO_ATTACH_REUSEPORT_EBPF | abi::SO_DETACH_REUSEPORT_BPF
    );
    if level == abi::SOL_SOCKET && steers && listening::is_served(fd) {
        // Such a program is that of all workers' sockets.
        return 0;
    }
    let arguments = [fd as usize, level as usize, name as usize, value as usize, len as usize];
    // SAFETY: the program's own arguments.
    let real = || unsafe { forward(number::SETSOCKOPT, arguments) };
    // A Unix socket refuses what is of another level: then the call may be made first.
    let refused = if level == abi::SOL_SOCKET { None } else { Some(real()) };
    let channel = match refused {
        None | Some(Err(Errno(abi::EOPNOTSUPP))) => channel::name(fd),
        Some(_) => None,
    };
    answer(match (channel, refused) {
        // SAFETY: the caller's promise.
        (Some(channel), _) => unsafe { options::set(fd, &channel, Name { level, name }, value, len) },
        (None, Some(result)) => result,
        (None, None) => real(),
    })
}

/// pthread_sigmask(3): where signals are let in again, the primary may have to hear of a new handler.
///
/// # Safety
/// As for pthread_sigmask(3): `set` must be null or point to a `sigset_t`, and so must `old`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_sigmask(how: i32, set: *const c_void, old: *mut c_void) -> i32 {
    let errno = __errno_location();
    // SAFETY: libc gives a valid pointer, for this thread alone; the program's own arguments. The two functions differ in
    // how they tell an error.
    let failed = unsafe {
        let before = *errno;
        match sigprocmask(how, set, old) {
            0 => 0,
            _ => core::mem::replace(&mut *errno, before),
        }
    };
    if failed == 0 && how == abi::SIG_SETMASK {
        handlers::look();
    }
    failed
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
