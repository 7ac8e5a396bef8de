//! Public addresses, as they are before the front watches them: bound so that what is taken is known at the start.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::Shutdown;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::arrival::{Arrival, Arrivals};
use super::listener::Takes;
use super::public_socket::PublicSocket;
use super::steering::snapshot::{ListeningSnapshot, ReservedSnapshot};
use crate::carry::CarriedFd;
use crate::settings::Bind;
use crate::sys::reuseport::{self, ListenerStatus};
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

    /// Where sockets are bound, or will be, for those who connect to it.
    pub(crate) fn socket_addresses(&self) -> Vec<SocketAddr> {
        match self {
            Bound::Address(bound) => bound.sockets.iter().map(PublicSocket::address).collect(),
            Bound::Socket(socket) => vec![socket.address],
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
    /// As it is written down.
    pub(super) fn snapshot(&self) -> ReservedSnapshot {
        let sockets = self.sockets.iter().map(PublicSocket::snapshot).collect();
        ReservedSnapshot { address: self.address, sockets }
    }

    /// This address with these sockets; `None` without any.
    pub(super) fn with(address: SocketAddr, sockets: Vec<PublicSocket>) -> Option<Self> {
        let backlog = sockets.first()?.backlog();
        Some(Self { address, backlog, sockets })
    }

    /// The address with these sockets, which refuse clients; `None` without any.
    pub(super) fn of(sockets: Vec<PublicSocket>) -> Option<Self> {
        // `[::]` is for both families.
        let widest = sockets.iter().max_by_key(|socket| socket.arrival() == Arrival::V6)?;
        let (address, backlog) = (widest.address(), widest.backlog());
        Some(Self { address, backlog, sockets })
    }

    /// A socket for a worker that takes these, which does not listen yet. Where both families are meant it is one socket,
    /// as a worker would have bound it. Others like it, and those for workers that take others, may stand beside it.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2), and that these do not arrive at this address.
    pub(super) fn member(&self, takes: Arrivals) -> io::Result<ListeningSocket> {
        let meant: Vec<_> = self.sockets.iter().filter(|socket| socket.is_for(takes)).collect();
        let (address, only_v6) = match meant[..] {
            [] => return Err(io::ErrorKind::AddrNotAvailable.into()),
            [socket] => (socket.address(), true),
            _ => (self.address, false),
        };
        self.let_in(|| ListeningSocket::bind(address, self.backlog, only_v6, true))
    }

    /// Has such a socket listen.
    ///
    /// # Errors
    /// Those of listen(2).
    pub(super) fn listen(&self, member: &ListeningSocket) -> io::Result<()> {
        self.let_in(|| member.listen())
    }

    /// What keeps the port shares it for a moment.
    fn let_in<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let share = |shares: bool| {
            self.sockets.iter().filter_map(PublicSocket::socket).try_for_each(|socket| {
                socket.set_reuse_address(shares)?;
                socket.set_reuse_port(shares)
            })
        };
        share(true)?;
        let acted = act();
        share(false)?;
        let over_ipv6 = self.sockets.iter().find(|socket| socket.arrival() == Arrival::V6);
        PublicSocket::share_no_longer(self.address.port(), over_ipv6);
        acted
    }
}

fn every_ipv4(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

/// A public socket that is kept in a form which others can share: it listens, or will.
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
            return Self::at(bind.address(), backlog, true);
        };
        match Self::at(bind.address(), backlog, false) {
            Err(error) if has_no_ipv6(&error) => Self::at(every_ipv4(port), backlog, true),
            other => other,
        }
    }

    fn at(address: SocketAddr, backlog: i32, only_v6: bool) -> io::Result<Self> {
        let bound = Self::bind(address, backlog, only_v6, false)?;
        bound.listen()?;
        Ok(bound)
    }

    fn bind(address: SocketAddr, backlog: i32, only_v6: bool, shares: bool) -> io::Result<Self> {
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
        Ok(Self { socket: socket.into(), address, backlog, is_inherited: false })
    }

    /// Another one for the same clients, which does not listen yet.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2): this one may be another user's, who alone can share the address.
    pub(super) fn another(&self) -> io::Result<Self> {
        SockRef::from(&self.socket).set_reuse_port(true)?;
        let only_v6 = self.takes() != Takes::Both;
        Self::bind(self.address, self.backlog, only_v6, true)
    }

    /// A socket that somebody else has bound, who listens with it again when this process is gone: non-blocking, and
    /// listening at `address`. At `[::]` it may serve both families.
    pub(crate) fn inherited(socket: OwnedFd, address: SocketAddr) -> Self {
        let backlog = socket::backlog_limit(&socket).unwrap_or(i32::MAX);
        Self { socket, address, backlog, is_inherited: true }
    }

    /// One that was watched, and is not any more; `None` if it is not what it was.
    pub(super) fn again(socket: OwnedFd, is_inherited: bool) -> Option<Self> {
        let address = SockRef::from(&socket).local_addr().ok()?.as_socket()?;
        Some(Self { is_inherited, ..Self::inherited(socket, address) })
    }

    /// As it is written down.
    pub(super) fn snapshot(&self) -> ListeningSnapshot {
        let &Self { ref socket, address, backlog, is_inherited } = self;
        ListeningSnapshot { socket: CarriedFd::of(socket), address, backlog, is_inherited }
    }

    /// The same in another image, with its `socket`.
    pub(super) fn carried(snapshot: &ListeningSnapshot, socket: OwnedFd) -> Self {
        let &ListeningSnapshot { socket: _, address, backlog, is_inherited } = snapshot;
        Self { socket, address, backlog, is_inherited }
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

    /// Lets new connections begin again.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(super) fn take_new_handshakes(&self) -> io::Result<()> {
        socket::take_new_handshakes(&self.socket)
    }

    /// How it stands.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub(super) fn status(&self) -> io::Result<ListenerStatus> {
        reuseport::status(&self.socket)
    }

    /// Listens no more, whoever else has a copy: what waits in its backlog is reset, or goes to others of its group.
    ///
    /// # Errors
    /// Those of shutdown(2).
    pub(super) fn shut(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.socket, Shutdown::Read)?)
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}
