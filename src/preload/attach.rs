//! Attaching a listener: bind(2) on a served port becomes a channel to the primary.
//!
//! It does not decide which sockets are attached (that is `intercept`), nor what comes through the channel.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::abi;
use crate::options;
use crate::settings;
use crate::syscalls::{self as sys, Errno, Fd, Owned, Result};
use crate::wire::{Binding, ChannelName, Endpoint, FromWorker, MAX_MESSAGE, Refusal, ToWorker};

/// How long the primary may take for each step of the handshake.
const PATIENCE_SECONDS: i64 = 5;

/// How often another name is tried when one is in use.
const NAME_ATTEMPTS: u32 = 16;

/// How an attempt to attach ended, when it did not fail.
pub(crate) enum Attached {
    /// The descriptor is a channel now.
    Yes,
    /// The primary does not serve this address, or there is none: it is the kernel's to bind.
    NotServed,
}

/// Replaces the server's socket `fd` by a channel that stands for a listener on `address`.
///
/// Errors: EACCES when the primary does not admit this process; EADDRINUSE, on which servers try again, when it
/// cannot take another channel or does not answer; else what making a socket failed with.
pub(crate) fn attach(fd: Fd, address: Endpoint) -> Result<Attached> {
    let channel = named_socket(address)?;
    set_patience(&channel, PATIENCE_SECONDS)?;
    match reach(&channel) {
        Ok(()) => {}
        Err(Errno(abi::ENOENT | abi::ECONNREFUSED)) => return Ok(Attached::NotServed),
        Err(Errno(abi::EACCES)) => return Err(Errno(abi::EACCES)),
        Err(_) => return Err(Errno(abi::EADDRINUSE)),
    }
    match greet(&channel, binding(fd, address)) {
        Ok(ToWorker::Welcome) => {}
        Ok(ToWorker::Refuse(Refusal::NotServed)) => return Ok(Attached::NotServed),
        Ok(ToWorker::Refuse(Refusal::NotAdmitted)) => return Err(Errno(abi::EACCES)),
        _ => return Err(Errno(abi::EADDRINUSE)),
    }
    options::report_all(fd, &channel);
    take_over(fd, &channel)?;
    Ok(Attached::Yes)
}

/// A new socket, bound to a channel's name.
fn named_socket(address: Endpoint) -> Result<Owned> {
    let socket = sys::socket(abi::AF_UNIX, abi::SOCK_SEQPACKET | abi::SOCK_CLOEXEC)?;
    let mut outcome = Ok(());
    for _ in 0..NAME_ATTEMPTS {
        let mut name = [0; 2 + ChannelName::LEN];
        let (family, path) = name.split_at_mut(2);
        family.copy_from_slice(&abi::AF_UNIX.to_ne_bytes());
        path.copy_from_slice(&ChannelName { address, given: false, nonce: nonce(socket.get()) }.encode());
        outcome = sys::bind(&socket, &name);
        if !matches!(outcome, Err(Errno(abi::EADDRINUSE))) {
            break;
        }
    }
    outcome.map(|()| socket)
}

/// A number that no other process or thread has at this moment. Processes of two process namespaces may share
/// their id and a namespace of names: then the clock differs, or another attempt does.
fn nonce(fd: Fd) -> u64 {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let process = u64::from(sys::getpid() as u32) << 32;
    let here = u64::from(fd as u32) << 16 ^ u64::from(count);
    sys::monotonic().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ process ^ here
}

fn set_patience(channel: &Owned, seconds: i64) -> Result<()> {
    let mut time = [0; 16];
    time[..8].copy_from_slice(&seconds.to_ne_bytes());
    sys::setsockopt(channel.get(), abi::SOL_SOCKET, abi::SO_RCVTIMEO, &time)?;
    sys::setsockopt(channel.get(), abi::SOL_SOCKET, abi::SO_SNDTIMEO, &time)
}

fn reach(channel: &Owned) -> Result<()> {
    let (address, len) = settings::attach_socket();
    let address = address.get(..len).unwrap_or(&address);
    through_signals(|| sys::connect(channel, address))
}

/// What the server binds, with the options that decide who else may bind it.
fn binding(fd: Fd, address: Endpoint) -> Binding {
    let is_set = |level, name| sys::getsockopt_int(fd, level, name).is_ok_and(|value| value != 0);
    Binding {
        address,
        only_v6: is_set(abi::IPPROTO_IPV6, abi::IPV6_V6ONLY),
        reuses_address: is_set(abi::SOL_SOCKET, abi::SO_REUSEADDR),
        reuses_port: is_set(abi::SOL_SOCKET, abi::SO_REUSEPORT),
    }
}

/// Says who this is, and hears the answer.
fn greet(channel: &Owned, binding: Binding) -> Result<ToWorker> {
    let hello =
        FromWorker::Attach { token: settings::token(), binding, wants_drain: false, brings_socket: false };
    let mut buffer = [0; MAX_MESSAGE];
    let record = hello.encode(&mut buffer);
    let fd = channel.get();
    through_signals(|| sys::send(fd, record, Some(fd), 0))?;
    let mut buffer = [0; MAX_MESSAGE];
    let len = through_signals(|| sys::receive_bytes(fd, &mut buffer, 0))?;
    let record = buffer.get(..len).unwrap_or_default();
    ToWorker::decode(record).map_err(|_| Errno(abi::EADDRINUSE))
}

/// Puts the channel in the place of the server's socket, in the same modes and with the same timeout for accept.
fn take_over(fd: Fd, channel: &Owned) -> Result<()> {
    set_patience(channel, 0)?;
    let mut time = [0; 16];
    if sys::getsockopt(fd, abi::SOL_SOCKET, abi::SO_RCVTIMEO, &mut time).is_ok() {
        sys::setsockopt(channel.get(), abi::SOL_SOCKET, abi::SO_RCVTIMEO, &time)?;
    }
    if sys::fcntl(fd, abi::F_GETFL, 0)? & abi::O_NONBLOCK != 0 {
        sys::fcntl(channel.get(), abi::F_SETFL, abi::O_NONBLOCK)?;
    }
    let cloexec = sys::fcntl(fd, abi::F_GETFD, 0)? & abi::FD_CLOEXEC != 0;
    through_signals(|| sys::dup3(channel, fd, if cloexec { abi::O_CLOEXEC } else { 0 }))
}

/// Repeats what a signal interrupted, but not for ever: a profiler's timer may interrupt every attempt.
fn through_signals<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = sys::monotonic() + PATIENCE_SECONDS as u64 * 1_000_000_000;
    loop {
        match attempt() {
            Err(Errno(abi::EINTR)) if sys::monotonic() < deadline => {}
            outcome => return outcome,
        }
    }
}
