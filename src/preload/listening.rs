//! Whether a process of this launch listens on a served port, for servers that ask by connect(2) whether a port is free.
//!
//! The public sockets belong to the primary and are always there: who connects to them before the worker listens would
//! find the port in use, where without clusterd nobody answers.

use crate::abi;
use crate::address::{self, Sockaddr};
use crate::numbers::Numbers;
use crate::primary;
use crate::settings;
use crate::syscalls::{self as sys, Errno, Fd};
use crate::wire::{ChannelName, Endpoint, FromWorker, ToWorker};

/// The ports on which somebody is known to have listened.
static LISTENED: Numbers = Numbers::none();

/// The public ports of listening sockets that this process was given. They may have other numbers than those that it bound.
static GIVEN: Numbers = Numbers::none();

/// How often the primary is asked whether it has noticed that this process listens. It takes its time to say no.
const ATTEMPTS: u32 = 16;

/// How often the primary is told that a server listens on a socket.
const TELLS: u32 = 3;

/// This process has begun to listen on a channel, and said so: returns once clients are let in, as they are when listen(2)
/// returns. The first listener of its kind opens a public socket.
pub(crate) fn begins(channel: &ChannelName) {
    let port = channel.address.port();
    LISTENED.add(port);
    for _ in 0..ATTEMPTS {
        let Ok((ToWorker::HasListened(false), _)) = ask(port, channel.nonce) else {
            return;
        };
    }
}

/// Whether this is a listening socket that the primary made. Then it listens, with the primary's backlog, and clients are let
/// in: natively, listen(2) would set another backlog, and clients would not come.
pub(crate) fn begins_on_socket(fd: Fd) -> bool {
    let Some(port) = tcp_port(fd) else {
        return false;
    };
    // One that another program was given before this one is known by an option that few others have.
    if !is_given(port) && !shares_port(fd) {
        return false;
    }
    let Ok(cookie) = sys::cookie(fd) else {
        return false;
    };
    for _ in 0..TELLS {
        match primary::ask(FromWorker::Listens { token: settings::token(), cookie }) {
            Ok((ToWorker::HasListened(is_one), _)) => {
                if is_one {
                    LISTENED.add(port);
                }
                return is_one;
            }
            Ok(_) | Err(Errno(abi::ENOENT | abi::ECONNREFUSED)) => return false,
            Err(_) => {}
        }
    }
    false
}

/// This process was given a listening socket.
pub(crate) fn was_given(fd: Fd) {
    if let Some(port) = tcp_port(fd) {
        GIVEN.add(port);
    }
}

/// Whether this is a TCP socket on a port that is served.
pub(crate) fn is_served(fd: Fd) -> bool {
    tcp_port(fd).is_some_and(is_given)
}

fn is_given(port: u16) -> bool {
    GIVEN.has(port) || settings::serves(port)
}

fn shares_port(fd: Fd) -> bool {
    sys::getsockopt_int(fd, abi::SOL_SOCKET, abi::SO_REUSEPORT).is_ok_and(|shares| shares != 0)
}

fn tcp_port(fd: Fd) -> Option<u16> {
    let mut buffer = [0; 128];
    let port = address::read(sys::getsockname(fd, &mut buffer).ok()?)?.port();
    let kind = sys::getsockopt_int(fd, abi::SOL_SOCKET, abi::SO_TYPE).ok()?;
    (kind == abi::SOCK_STREAM).then_some(port)
}

/// Asks of one channel, or with 0 of any.
fn ask(port: u16, channel: u64) -> sys::Result<(ToWorker, Option<sys::Owned>)> {
    primary::ask(FromWorker::AskListened { token: settings::token(), port, channel })
}

/// Where a connection to `address`, on a served port, has to go to be refused as the kernel refuses it; `None` if it is
/// not to be refused: somebody listens, it is another machine's address, or nobody could be asked.
pub(crate) fn dead_end(address: &Endpoint) -> Option<Sockaddr> {
    let port = address.port();
    if LISTENED.has(port) {
        return None;
    }
    let free = unused_port_at(address)?;
    match ask(port, 0) {
        Ok((ToWorker::HasListened(false), _)) => Some(free),
        Ok((ToWorker::HasListened(true), _)) => {
            LISTENED.add(port);
            None
        }
        _ => None,
    }
}

/// A port on which nobody listens, at the same address; `None` if the address is not one of this machine.
fn unused_port_at(address: &Endpoint) -> Option<Sockaddr> {
    let socket = sys::socket(address::family(address), abi::SOCK_STREAM | abi::SOCK_CLOEXEC).ok()?;
    sys::bind(&socket, address::write(&address::with_port(address, 0)).bytes()).ok()?;
    let mut buffer = [0; 128];
    let bound = address::read(sys::getsockname(socket.get(), &mut buffer).ok()?)?;
    Some(address::write(&bound))
}
