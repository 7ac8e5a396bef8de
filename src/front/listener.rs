//! A public listening socket.
//!
//! It accepts when it is asked to and keeps nothing; what happens to a connection is decided in `service`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;

use crate::front::connection::Connection;
use crate::protocol::wire::{Endpoint, SocketOption};
use crate::settings::Bind;
use crate::sys::socket;
use crate::sys::watched::Watched;

/// A public address that is bound and listening, and that nobody watches.
///
/// Both families together are two sockets, so that a client over IPv4 is an IPv4 connection: a server that listens
/// on IPv4 may ask the connection for its addresses, and a v4-mapped one would be news to it. Redis, for instance,
/// turns away `::ffff:127.0.0.1`, which is not the loopback address that it knows.
#[derive(Debug)]
pub(crate) struct Bound {
    sockets: Vec<OwnedFd>,
    address: SocketAddr,
    backlog: i32,
    is_inherited: bool,
}

/// How many times the kernel may choose a port for one family that is taken in the other.
const CHOICES: usize = 16;

impl Bound {
    /// Binds and listens with a single socket, which workers can share. `Bind::Everywhere` takes both families with
    /// it, as Node does, or IPv4 alone where there is no IPv6.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2).
    pub(crate) fn single(bind: Bind, backlog: u32) -> io::Result<Self> {
        let Bind::Everywhere { port } = bind else {
            return Self::at(bind.address(), backlog, Families::Own);
        };
        match Self::at(bind.address(), backlog, Families::Both) {
            Err(error) if has_no_ipv6(&error) => Self::over_ipv4(port, backlog),
            other => other,
        }
    }

    /// Binds and listens. `Bind::Everywhere` takes both families, or IPv4 alone where there is no IPv6.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2).
    pub(crate) fn new(bind: Bind, backlog: u32) -> io::Result<Self> {
        let Bind::Everywhere { port } = bind else {
            return Self::at(bind.address(), backlog, Families::Own);
        };
        for _ in 1..CHOICES {
            match Self::everywhere(port, backlog) {
                Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                other => return other,
            }
        }
        Self::everywhere(port, backlog)
    }

    fn everywhere(port: u16, backlog: u32) -> io::Result<Self> {
        let mut bound = match Self::at(Bind::Everywhere { port }.address(), backlog, Families::Own) {
            Err(error) if has_no_ipv6(&error) => return Self::over_ipv4(port, backlog),
            other => other?,
        };
        let over_ipv4 = Self::over_ipv4(bound.address.port(), backlog)?;
        bound.sockets.extend(over_ipv4.sockets);
        Ok(bound)
    }

    fn over_ipv4(port: u16, backlog: u32) -> io::Result<Self> {
        Self::at((Ipv4Addr::UNSPECIFIED, port).into(), backlog, Families::Own)
    }

    fn at(address: SocketAddr, backlog: u32, families: Families) -> io::Result<Self> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_cloexec(true)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(families == Families::Own)?;
        }
        socket.bind(&SockAddr::from(address))?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let bound = Self { sockets: vec![socket.into()], address, backlog, is_inherited: false };
        bound.listen()?;
        Ok(bound)
    }

    /// A socket that somebody else has bound, who listens with it again when this process is gone: non-blocking, and
    /// listening at `address`. At `[::]` it may serve both families.
    pub(crate) fn inherited(socket: OwnedFd, address: SocketAddr) -> Self {
        let backlog = socket::backlog_limit(&socket).unwrap_or(i32::MAX);
        Self { sockets: vec![socket], address, backlog, is_inherited: true }
    }

    /// Listens, with the backlog that was asked for, whatever another process has made of it since.
    ///
    /// # Errors
    /// Those of listen(2).
    pub(crate) fn listen(&self) -> io::Result<()> {
        self.sockets.iter().try_for_each(|socket| Ok(rustix::net::listen(socket, self.backlog)?))
    }

    /// Where it listens, `[::]` for both families; the port is the real one where the kernel chose it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether somebody else has bound it.
    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// A copy of the socket of [`Bound::single`], for a process that accepts by itself.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub(crate) fn copy(&self) -> io::Result<OwnedFd> {
        self.sockets.first().ok_or(io::ErrorKind::NotFound)?.try_clone()
    }

    /// Lets no new connection begin, while those that have begun can still be accepted by whoever has a copy.
    ///
    /// # Errors
    /// Those of setsockopt(2): some kernels keep filters for the privileged.
    pub(crate) fn filter_new_handshakes(&self) -> io::Result<()> {
        self.sockets.iter().try_for_each(socket::filter_new_handshakes)
    }

    /// Whether every connection that clients have established was accepted.
    pub(crate) fn has_empty_backlog(&self) -> bool {
        self.sockets.iter().all(has_empty_backlog)
    }
}

/// What an IPv6 socket takes (IPV6_V6ONLY, ipv6(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Families {
    Own,
    Both,
}

fn has_empty_backlog(socket: impl AsFd) -> bool {
    !socket::backlog_len(socket).is_ok_and(|len| len > 0)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// A listening socket, watched by the front's runtime.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Watched,
    options: Vec<SocketOption>,
    /// How many connections of the backlog are older than the last change of `options`, and so do not have them.
    without_options: usize,
    is_inherited: bool,
    stopped: bool,
}

impl Listener {
    /// Watches the sockets of an address.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn watch(bound: Bound) -> io::Result<Vec<Self>> {
        bound.sockets.into_iter().map(|socket| Self::new(socket, bound.is_inherited)).collect()
    }

    fn new(socket: OwnedFd, is_inherited: bool) -> io::Result<Self> {
        Ok(Self {
            socket: Watched::new(socket, Interest::READABLE)?,
            options: Vec::new(),
            without_options: 0,
            is_inherited,
            stopped: false,
        })
    }

    /// The next connection from the backlog.
    ///
    /// A connection that was reset before it was accepted is passed over, as accept(2) advises.
    ///
    /// # Errors
    /// Those of accept(2) that are about this process: no descriptors, no memory.
    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::acceptfrom_with(&self.socket, flags) {
                Ok((socket, peer)) => {
                    let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) else {
                        continue;
                    };
                    let accepted = Instant::now();
                    self.complete_options(&socket);
                    return Poll::Ready(Ok(Connection { socket, peer: endpoint(peer), accepted }));
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(error) if is_ours(error) => return Poll::Ready(Err(error.into())),
                Err(_) => {}
            }
        }
    }

    /// Sets an option that a worker set on its own listener; connections inherit it from this socket (tcp(7)).
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(crate) fn set_option(&mut self, option: SocketOption) -> io::Result<()> {
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
        if self.stopped {
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
    pub(crate) fn has_empty_backlog(&self) -> bool {
        has_empty_backlog(&self.socket)
    }

    /// Whether its backlog is for whoever listens with it next: the socket is another's, who keeps it open.
    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// Lets no new connection begin, while those that have begun can still be accepted.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        self.stopped = true;
        socket::drop_new_handshakes(self.socket.as_fd())
    }
}

/// Sets an option on a connection that was accepted before the option was known.
pub(crate) fn apply(option: &SocketOption, connection: &OwnedFd) {
    // The client may have reset the connection, which then needs no options.
    let _ = socket::set_option(connection, option.level, option.name, option.bytes());
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
