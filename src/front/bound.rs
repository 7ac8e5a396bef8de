//! Public addresses, as they are before the front watches them: bound so that what is taken is known at the start.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::arrival::{Arrival, Arrivals};
use super::listener::{self, Takes};
use super::public_socket::PublicSocket;
use crate::settings::Bind;
use crate::sys::socket;

/// A public address.
#[derive(Debug)]
pub(crate) enum Bound {
    /// It has a socket for each way in which clients may arrive, and they are refused until a worker listens.
    Address(BoundAddress),
    /// It is a socket that listens.
    Socket(ListeningSocket),
}

impl Bound {
    /// Where clients connect to, `[::]` for both families; the port is the real one where the kernel chose it.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Bound::Address(bound) => bound.address,
            Bound::Socket(socket) => socket.address,
        }
    }

    /// Whether somebody else has bound it.
    pub(crate) fn is_inherited(&self) -> bool {
        matches!(self, Bound::Socket(socket) if socket.is_inherited)
    }
}

/// A public address with its sockets.
///
/// A server can tell by which socket a connection has come: over an IPv4 one and over an IPv6 one, the same client has
/// another address (ipv6(7)). Redis, for instance, turns away `::ffff:127.0.0.1`, which is not the loopback address that it
/// knows. So there is one for each kind of listener that a worker may open.
#[derive(Debug)]
pub(crate) struct BoundAddress {
    address: SocketAddr,
    backlog: i32,
    pub(super) sockets: Vec<PublicSocket>,
}

/// How many times the kernel may choose a port for one family that is taken in the other.
const CHOICES: usize = 16;

impl BoundAddress {
    /// Binds it, and refuses clients. `Bind::Everywhere` takes both families, or IPv4 alone where there is no IPv6.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2).
    pub(crate) fn new(bind: Bind, backlog: u32) -> io::Result<Self> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let port = match bind {
            Bind::Everywhere { port } => port,
            Bind::Address(address @ SocketAddr::V4(_)) => return Self::over_ipv4(address, backlog),
            Bind::Address(address @ SocketAddr::V6(_)) => {
                let socket = PublicSocket::bound(address, Arrival::V6, backlog)?;
                return Ok(Self { address: socket.address(), backlog, sockets: vec![socket] });
            }
        };
        for _ in 1..CHOICES {
            match Self::everywhere(port, backlog) {
                Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                other => return other,
            }
        }
        Self::everywhere(port, backlog)
    }

    fn everywhere(port: u16, backlog: i32) -> io::Result<Self> {
        let address = Bind::Everywhere { port }.address();
        let over_ipv6 = match PublicSocket::bound(address, Arrival::V6, backlog) {
            Err(error) if has_no_ipv6(&error) => return Self::over_ipv4(every_ipv4(port), backlog),
            other => other?,
        };
        let address = over_ipv6.address();
        let mut sockets = Self::over_ipv4(every_ipv4(address.port()), backlog)?.sockets;
        sockets.push(over_ipv6);
        Ok(Self { address, backlog, sockets })
    }

    fn over_ipv4(address: SocketAddr, backlog: i32) -> io::Result<Self> {
        let socket = PublicSocket::bound(address, Arrival::V4, backlog)?;
        let address = socket.address();
        let SocketAddr::V4(v4) = address else { return Err(io::ErrorKind::InvalidInput.into()) };
        // A worker that asks for both families, as Node does, gets the one that there is.
        if Socket::new(Domain::IPV6, Type::STREAM, None).is_err_and(|error| has_no_ipv6(&error)) {
            return Ok(Self { address, backlog, sockets: vec![socket.also_for(Arrival::Mapped)] });
        }
        let mapped = (v4.ip().to_ipv6_mapped(), v4.port()).into();
        let mapped = PublicSocket::unbound(mapped, Arrival::Mapped, backlog);
        Ok(Self { address, backlog, sockets: vec![socket, mapped] })
    }
}

impl BoundAddress {
    /// A socket for workers that take these, which listens. Where both families are meant it is one socket, as a worker
    /// would have bound it. It stands beside those that others listen with already.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2), and that these do not arrive at this address.
    pub(super) fn share(&self, takes: Arrivals, others: &[&ListeningSocket]) -> io::Result<ListeningSocket> {
        let meant: Vec<_> = self.sockets.iter().filter(|socket| socket.is_for(takes)).collect();
        let (address, only_v6) = match meant[..] {
            [] => return Err(io::ErrorKind::AddrNotAvailable.into()),
            [socket] => (socket.address(), true),
            _ => (self.address, false),
        };
        let reserved = self.sockets.iter().filter_map(PublicSocket::socket);
        let all: Vec<_> = reserved.chain(others.iter().map(|other| SockRef::from(&other.socket))).collect();
        let let_in = |shares: bool| {
            all.iter().try_for_each(|socket| {
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(shares)
            })
        };
        let_in(!others.is_empty())?;
        let bound = ListeningSocket::at(address, self.backlog, only_v6, !others.is_empty());
        let_in(false)?;
        self.sockets
            .iter()
            .filter_map(PublicSocket::socket)
            .try_for_each(|socket| socket.set_reuse_address(false))?;
        bound
    }
}

fn every_ipv4(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

/// A public socket that listens from the start to the end.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    socket: OwnedFd,
    address: SocketAddr,
    backlog: i32,
    is_inherited: bool,
}

impl ListeningSocket {
    /// Binds and listens. `Bind::Everywhere` takes both families with one socket, as Node does, or IPv4 alone where there
    /// is no IPv6.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2).
    pub(crate) fn new(bind: Bind, backlog: u32) -> io::Result<Self> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let Bind::Everywhere { port } = bind else {
            return Self::at(bind.address(), backlog, true, false);
        };
        match Self::at(bind.address(), backlog, false, false) {
            Err(error) if has_no_ipv6(&error) => Self::at(every_ipv4(port), backlog, true, false),
            other => other,
        }
    }

    fn at(address: SocketAddr, backlog: i32, only_v6: bool, shares: bool) -> io::Result<Self> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_cloexec(true)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shares)?;
        if let IpAddr::V6(ip) = address.ip() {
            socket.set_only_v6(only_v6 && ip.to_ipv4_mapped().is_none())?;
        }
        socket.bind(&SockAddr::from(address))?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        let bound = Self { socket: socket.into(), address, backlog, is_inherited: false };
        bound.listen()?;
        SockRef::from(&bound.socket).set_reuse_port(false)?;
        Ok(bound)
    }

    /// A socket that somebody else has bound, who listens with it again when this process is gone: non-blocking, and
    /// listening at `address`. At `[::]` it may serve both families.
    pub(crate) fn inherited(socket: OwnedFd, address: SocketAddr) -> Self {
        let backlog = socket::backlog_limit(&socket).unwrap_or(i32::MAX);
        Self { socket, address, backlog, is_inherited: true }
    }

    /// Listens, with the backlog that was asked for, whatever another process has made of it since.
    ///
    /// # Errors
    /// Those of listen(2).
    pub(super) fn listen(&self) -> io::Result<()> {
        Ok(rustix::net::listen(&self.socket, self.backlog)?)
    }

    /// Where it listens; the port is the real one where the kernel chose it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether somebody else has bound it.
    pub(super) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// How those arrive who come to it.
    pub(super) fn takes(&self) -> Takes {
        match self.address.ip() {
            IpAddr::V4(_) => Takes::Only(Arrival::V4),
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Takes::Only(Arrival::Mapped),
            IpAddr::V6(ip) if ip.is_unspecified() => {
                let only_v6 = rustix::net::sockopt::ipv6_v6only(&self.socket).unwrap_or(false);
                if only_v6 { Takes::Only(Arrival::V6) } else { Takes::Both }
            }
            IpAddr::V6(_) => Takes::Only(Arrival::V6),
        }
    }

    /// The socket.
    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// A copy of it, for a process that accepts by itself.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub(super) fn copy(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Lets no new connection begin, while those that have begun can still be accepted by whoever has a copy.
    ///
    /// # Errors
    /// Those of setsockopt(2): some kernels keep filters for the privileged.
    pub(super) fn filter_new_handshakes(&self) -> io::Result<()> {
        socket::filter_new_handshakes(&self.socket)
    }

    /// Whether every connection that clients have established was accepted.
    pub(super) fn has_empty_backlog(&self) -> bool {
        listener::has_empty_backlog(&self.socket)
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}
