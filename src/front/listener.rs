//! A public socket that listens, watched: accepts when it is asked to, and keeps nothing.
//!
//! What happens to a connection is decided in `service`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use rustix::net::SocketFlags;
use tokio::io::Interest;

use super::arrival::{Arrival, Arrivals};
use super::snapshot::ListenerSnapshot;
use crate::carry::CarriedFd;
use crate::front::connection::Connection;
use crate::protocol::wire::{Endpoint, SocketOption};
use crate::sys::socket;
use crate::sys::watched::Watched;

/// How those arrive who come to a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// All in the same way.
    Only(Arrival),
    /// Over IPv4 or IPv6, as each client tells.
    Both,
}

impl Takes {
    fn arrival(self, peer: SocketAddr) -> Arrival {
        match self {
            Takes::Only(arrival) => arrival,
            Takes::Both => Arrival::at_dual_stack(peer),
        }
    }
}

/// A listening socket, watched by the front's runtime.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Watched,
    takes: Takes,
    options: Vec<SocketOption>,
    /// How many connections of the backlog are older than the last change of `options`, and so do not have them.
    without_options: usize,
    /// New clients are kept out, or were so when those were who are in the backlog.
    is_kept_out: bool,
    burst: Burst,
}

/// How many connections were accepted since there were none.
///
/// Most often one comes alone. To see that there is no other with poll(2) costs a third of what an accept4(2) does that fails,
/// which makes a socket and its file first; where there are several, that is asked once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Burst {
    None,
    One,
    Several,
}

impl Listener {
    /// Watches a listening socket on which these options are set.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn watch(socket: OwnedFd, takes: Takes, options: Vec<SocketOption>) -> io::Result<Self> {
        let socket = Watched::new(socket, Interest::READABLE)?;
        Ok(Self { socket, takes, options, without_options: 0, is_kept_out: false, burst: Burst::None })
    }

    /// As it is written down.
    pub(super) fn snapshot(&self) -> ListenerSnapshot {
        ListenerSnapshot {
            socket: CarriedFd::of(&self.socket),
            options: self.options.clone(),
            without_options: self.without_options,
            is_kept_out: self.is_kept_out,
        }
    }

    /// It stands as it was written down.
    pub(super) fn resume(&mut self, snapshot: ListenerSnapshot) {
        let ListenerSnapshot { socket: _, options, without_options, is_kept_out } = snapshot;
        (self.options, self.without_options, self.is_kept_out) = (options, without_options, is_kept_out);
    }

    /// The socket, watched no longer.
    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket.into_fd()
    }

    /// Whether one who arrives so may come to it.
    pub(super) fn takes(&self, arrivals: Arrivals) -> bool {
        match self.takes {
            Takes::Only(arrival) => arrivals.has(arrival),
            Takes::Both => arrivals.has(Arrival::Mapped) || arrivals.has(Arrival::V6),
        }
    }

    /// The next connection from the backlog.
    ///
    /// A connection that was reset before it was accepted is passed over, as accept(2) advises.
    ///
    /// # Errors
    /// Those of accept(2) that are about this process: no descriptors, no memory.
    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            if self.burst == Burst::One && !socket::is_readable(&self.socket) {
                guard.clear_ready();
                self.burst = Burst::None;
                continue;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::acceptfrom_with(&self.socket, flags) {
                Ok((socket, peer)) => {
                    self.burst = if self.burst == Burst::None { Burst::One } else { Burst::Several };
                    let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) else {
                        continue;
                    };
                    let (accepted, arrival) = (Instant::now(), self.takes.arrival(peer));
                    self.complete_options(&socket);
                    let socket = socket.into();
                    let connection = Connection { socket, peer: endpoint(peer), arrival, accepted };
                    return Poll::Ready(Ok(connection));
                }
                Err(rustix::io::Errno::AGAIN) => {
                    guard.clear_ready();
                    self.burst = Burst::None;
                }
                Err(error) if is_ours(error) => return Poll::Ready(Err(error.into())),
                Err(_) => {}
            }
        }
    }

    /// Sets an option that a worker set on its own listener; connections inherit it from this socket (tcp(7)).
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(super) fn set_option(&mut self, option: SocketOption) -> io::Result<()> {
        if self.options.contains(&option) {
            return Ok(());
        }
        socket::set_option(&self.socket, option.level, option.name, option.bytes())?;
        self.options.retain(|old| (old.level, old.name) != (option.level, option.name));
        self.options.push(option);
        self.without_options = socket::backlog_len(&self.socket)?;
        Ok(())
    }

    fn complete_options(&mut self, socket: &OwnedFd) {
        if self.is_kept_out {
            // The client may have reset the connection, which then needs nothing.
            let _ = socket::welcome_late(socket);
        }
        if self.without_options == 0 {
            return;
        }
        self.without_options -= 1;
        for option in &self.options {
            apply(option, socket);
        }
    }

    /// Whether every connection that clients have established was accepted.
    pub(super) fn has_empty_backlog(&self) -> bool {
        has_empty_backlog(&self.socket)
    }

    /// Lets no new connection begin, while those that have begun can still be accepted.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(super) fn keep_out(&mut self) -> io::Result<()> {
        self.is_kept_out = true;
        socket::drop_new_handshakes(&self.socket)
    }

    /// Lets new connections begin again.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(super) fn go_on(&mut self) -> io::Result<()> {
        socket::take_new_handshakes(&self.socket)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sets an option on a connection that was accepted before the option was known.
pub(super) fn apply(option: &SocketOption, connection: impl AsFd) {
    // The client may have reset the connection, which then needs no options.
    let _ = socket::set_option(connection, option.level, option.name, option.bytes());
}

/// Whether every connection that clients have established was accepted.
pub(super) fn has_empty_backlog(socket: impl AsFd) -> bool {
    !socket::backlog_len(socket).is_ok_and(|len| len > 0)
}

/// accept(2) also reports what befell the one connection that it would have returned.
fn is_ours(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::INVAL | Errno::BADF)
}

/// A client over IPv4 is one also where a socket serves both families.
fn endpoint(address: SocketAddr) -> Endpoint {
    let port = address.port();
    let scope = if let SocketAddr::V6(v6) = address { v6.scope_id() } else { 0 };
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => Endpoint::V4 { address: ip.octets(), port },
        IpAddr::V6(ip) => Endpoint::V6 { address: ip.octets(), port, scope },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_over_ipv4_is_one_whatever_socket_it_came_to() {
        let v4 = Endpoint::V4 { address: [192, 0, 2, 1], port: 7 };
        assert_eq!(endpoint("192.0.2.1:7".parse().unwrap()), v4);
        assert_eq!(endpoint("[::ffff:192.0.2.1]:7".parse().unwrap()), v4);
        let mut address = [0; 16];
        (address[0], address[1], address[15]) = (0xfe, 0x80, 1);
        assert_eq!(endpoint("[fe80::1%3]:7".parse().unwrap()), Endpoint::V6 { address, port: 7, scope: 3 });
    }
}
