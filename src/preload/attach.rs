//! Attaching a listener: bind(2) on a served port becomes a channel to the primary, or, where workers accept by themselves, a
//! listening socket that the primary made.
//!
//! It does not decide which sockets are attached (that is `intercept`), nor what comes through the channel.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::abi;
use crate::descriptors::Descriptors;
use crate::listening;
use crate::primary::{self, PATIENCE_SECONDS};
use crate::replace::{self, Watched};
use crate::settings;
use crate::syscalls::{self as sys, Errno, Fd, Owned, Result};
use crate::wire::{Binding, ChannelName, Endpoint, FromWorker, Refusal, ToWorker};

/// How often another name is tried when one is in use.
const NAME_ATTEMPTS: u32 = 16;

/// How an attempt to attach ended, when it did not fail.
pub(crate) enum Attached {
    /// The descriptor is a channel now, or a listening socket of the primary's.
    Yes,
    /// The primary does not serve this address, or there is none: it is the kernel's to bind.
    NotServed,
}

/// Replaces the server's socket `fd` by what stands for a listener on `address`.
///
/// Errors: EADDRNOTAVAIL when workers accept by themselves, and clients cannot come to such a listener; EACCES when the primary does not admit this process; EADDRINUSE, on which servers try again, when another
/// process of the worker has the address, or the primary cannot take another channel or does not answer; else what
/// making a socket failed with.
pub(crate) fn attach(fd: Fd, address: Endpoint) -> Result<Attached> {
    let channel = named_socket(address)?;
    match primary::reach(&channel, PATIENCE_SECONDS) {
        Ok(()) => {}
        Err(Errno(abi::ENOENT | abi::ECONNREFUSED)) => return Ok(Attached::NotServed),
        Err(Errno(abi::EACCES | abi::EPERM)) => return Err(Errno(abi::EACCES)),
        Err(_) => return Err(Errno(abi::EADDRINUSE)),
    }
    let descriptors = Descriptors::open();
    match greet(&channel, fd, address, descriptors.is_some()) {
        Ok((ToWorker::Welcome, _)) => {}
        Ok((ToWorker::Listener { .. }, Some(listener))) => {
            replace::everywhere(fd, &listener, Watched::AsBefore, descriptors.as_ref())?;
            listening::was_given(fd);
            return Ok(Attached::Yes);
        }
        Ok((ToWorker::Refuse(Refusal::NotServed), _)) => return Ok(Attached::NotServed),
        Ok((ToWorker::Refuse(Refusal::NoAddress), _)) => return Err(Errno(abi::EADDRNOTAVAIL)),
        Ok((ToWorker::Refuse(Refusal::NotAdmitted), _)) => return Err(Errno(abi::EACCES)),
        _ => return Err(Errno(abi::EADDRINUSE)),
    }
    if is_of_one_ipv6_address(&address) {
        // As the kernel does at bind(2), and undoes when that fails.
        let _ = sys::setsockopt(fd, abi::IPPROTO_IPV6, abi::IPV6_V6ONLY, &1_i32.to_ne_bytes());
    }
    primary::set_patience(&channel, 0)?;
    replace::everywhere(fd, &channel, Watched::AsListener, descriptors.as_ref())?;
    Ok(Attached::Yes)
}

/// Whether no IPv4 client could come to such a listener, whatever its options are.
fn is_of_one_ipv6_address(address: &Endpoint) -> bool {
    match address {
        Endpoint::V4 { .. } => false,
        Endpoint::V6 { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..], .. } => false,
        Endpoint::V6 { address, .. } => *address != [0; 16],
    }
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

/// Says who this is and what it binds, and hears the answer.
///
/// The primary keeps the server's own socket, and with it whatever registrations at epoll instances could not be
/// found: without a look at the process's descriptors it does not get the socket.
fn greet(
    channel: &Owned,
    fd: Fd,
    address: Endpoint,
    brings_socket: bool,
) -> Result<(ToWorker, Option<Owned>)> {
    let is_set = |level, name| sys::getsockopt_int(fd, level, name).is_ok_and(|flag| flag != 0);
    let binding = Binding {
        address,
        only_v6: is_set(abi::IPPROTO_IPV6, abi::IPV6_V6ONLY),
        reuses_address: is_set(abi::SOL_SOCKET, abi::SO_REUSEADDR),
        reuses_port: is_set(abi::SOL_SOCKET, abi::SO_REUSEPORT),
    };
    let hello = FromWorker::Attach { token: settings::token(), binding, wants_drain: false, brings_socket };
    match primary::exchange(channel, &[(hello, None)])? {
        (ToWorker::Admitted, _) => {}
        refused => return Ok(refused),
    }
    let messages = [(FromWorker::End, Some(channel.get())), (FromWorker::Socket, Some(fd))];
    let [end, _] = &messages;
    primary::exchange(channel, if brings_socket { &messages } else { core::slice::from_ref(end) })
}
