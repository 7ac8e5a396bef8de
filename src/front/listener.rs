//! A public listening socket.
//!
//! It accepts when it is asked to and keeps nothing; what happens to a connection is decided in `service`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;

use crate::config::Bind;
use crate::protocol::native::Connection;
use crate::protocol::wire::{Endpoint, SocketOption};
use crate::sys::socket;
use crate::sys::watched::Watched;

/// A public address that is bound and listening, before the front watches it.
///
/// Both families together are two sockets, so that a client over IPv4 is an IPv4 connection: a server that listens
/// on IPv4 may ask the connection for its addresses, and a v4-mapped one would be news to it. Redis, for instance,
/// turns away `::ffff:127.0.0.1`, which is not the loopback address that it knows.
#[derive(Debug)]
pub struct Bound {
    sockets: Vec<OwnedFd>,
    address: SocketAddr,
}

/// How many times the kernel may choose a port for one family that is taken in the other.
const CHOICES: usize = 16;

impl Bound {
    /// Binds and listens. `Bind::Everywhere` takes both families, or IPv4 alone where there is no IPv6.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2).
    pub fn new(bind: Bind, backlog: u32) -> io::Result<Self> {
        let Bind::Everywhere { port } = bind else {
            return Self::at(bind.address(), backlog);
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
        let mut bound = match Self::at(Bind::Everywhere { port }.address(), backlog) {
            Err(error) if has_no_ipv6(&error) => {
                return Self::at((Ipv4Addr::UNSPECIFIED, port).into(), backlog);
            }
            other => other?,
        };
        let over_ipv4 = Self::at((Ipv4Addr::UNSPECIFIED, bound.address.port()).into(), backlog)?;
        bound.sockets.extend(over_ipv4.sockets);
        Ok(bound)
    }

    fn at(address: SocketAddr, backlog: u32) -> io::Result<Self> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_cloexec(true)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&SockAddr::from(address))?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { sockets: vec![socket.into()], address })
    }

    /// Where it listens, `[::]` for both families; the port is the real one where the kernel chose it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// A listening socket, watched by the front's runtime.
#[derive(Debug)]
pub struct Listener {
    socket: Watched,
    options: Vec<SocketOption>,
    /// How many connections of the backlog are older than the last change of `options`, and so do not have them.
    without_options: usize,
    stopped: bool,
}

impl Listener {
    /// Watches the sockets of an address.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn watch(bound: Bound) -> io::Result<Vec<Self>> {
        bound.sockets.into_iter().map(Self::new).collect()
    }

    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: Watched::new(socket, Interest::READABLE)?,
            options: Vec::new(),
            without_options: 0,
            stopped: false,
        })
    }

    /// The next connection from the backlog.
    ///
    /// A connection that was reset before it was accepted is passed over, as accept(2) advises.
    ///
    /// # Errors
    /// Those of accept(2) that are about this process: no descriptors, no memory.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
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
    pub fn set_option(&mut self, option: SocketOption) -> io::Result<()> {
        if self.options.contains(&option) {
            return Ok(());
        }
        socket::set_option(&self.socket, option.level, option.name, value(&option))?;
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
    pub fn has_empty_backlog(&self) -> bool {
        !socket::backlog_len(&self.socket).is_ok_and(|len| len > 0)
    }

    /// Lets no new connection begin, while those that have begun can still be accepted.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn stop(&mut self) -> io::Result<()> {
        self.stopped = true;
        socket::drop_new_handshakes(self.socket.as_fd())
    }
}

/// Sets an option on a connection that was accepted before the option was known.
pub fn apply(option: &SocketOption, connection: &OwnedFd) {
    // The client may have reset the connection, which then needs no options.
    let _ = socket::set_option(connection, option.level, option.name, value(option));
}

fn value(option: &SocketOption) -> &[u8] {
    &option.value[..usize::from(option.len).min(option.value.len())]
}

/// accept(2) also reports what befell the one connection that it would have returned.
fn is_ours(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::INVAL | Errno::BADF)
}

fn endpoint(address: SocketAddr) -> Endpoint {
    match address {
        SocketAddr::V4(v4) => Endpoint::V4 { address: v4.ip().octets(), port: v4.port() },
        SocketAddr::V6(v6) => {
            Endpoint::V6 { address: v6.ip().octets(), port: v6.port(), scope: v6.scope_id() }
        }
    }
}
