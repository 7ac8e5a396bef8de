//! A listener that clusterd feeds if there is one, and the kernel if not.
//!
//! It accepts and no more: it neither serves a protocol nor limits how many connections are open.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::channel::{self, Attached, Channel, Incoming};
use super::error::BindError;
use super::wire;

/// How long the primary may take to answer an attach.
pub(super) const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);

/// The backlog of a listener of its own, as tokio's `TcpListener::bind` sets it.
const BACKLOG: u32 = 1024;

/// Where to listen: a port on every address of the machine, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// This port, of both families where there is IPv6, else of IPv4 alone.
    Port(u16),
    /// This address alone.
    Exact(SocketAddr),
}

impl Address {
    /// The address that the server asks for, with `[::]` for every one.
    pub(super) fn asked(self) -> SocketAddr {
        match self {
            Address::Port(port) => (Ipv6Addr::UNSPECIFIED, port).into(),
            Address::Exact(address) => address,
        }
    }
}

impl From<u16> for Address {
    fn from(port: u16) -> Self {
        Address::Port(port)
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Exact(address)
    }
}

/// A listener from which connections come. Dropping it ends that: what clusterd has handed over and nobody has accepted
/// goes to other workers, and accepted connections stay open.
#[derive(Debug)]
pub struct Listener {
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The primary accepts and hands over.
    Cluster { channel: Channel, asked: SocketAddr },
    /// The primary announced that no further connection will come.
    Drained { asked: SocketAddr },
    /// There is no primary, or it does not serve this port.
    Alone(TcpListener),
}

impl Listener {
    /// Listens on a port or an address; connections come at once. [`Listener::bind_paused`] is for a server that has
    /// more to do first.
    ///
    /// A port that clusterd does not serve is listened on directly, as if there were no clusterd.
    ///
    /// # Errors
    /// [`BindError`], at the latest after 5 s.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn bind(address: impl Into<Address>) -> Result<Self, BindError> {
        Self::bind_paused(address).await?.ready()
    }

    /// Takes a port or an address; no connection comes before [`PausedListener::ready`].
    ///
    /// # Errors
    /// [`BindError`], at the latest after 5 s.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn bind_paused(address: impl Into<Address>) -> Result<PausedListener, BindError> {
        PausedListener::bind(address.into(), Environment::of_this_process()).await
    }

    /// Waits for the next connection, and returns it with its client's address. `None`: clusterd is draining this
    /// worker, and no further connection will come. Finish those that are open, and exit.
    ///
    /// The address of a client that connects by IPv4 is an IPv4 address, never a mapped one.
    ///
    /// Cancel safe: a future that is dropped has taken no connection.
    ///
    /// # Errors
    /// - `UnexpectedEof`: clusterd is gone, and no connection will ever come again; end the server.
    /// - `EMFILE` or `ENFILE` (see [`io::Error::raw_os_error`]): no descriptor is free. The connection is not lost: it
    ///   waits, and goes to another worker if it waits too long. Accept again after closing some.
    /// - `InvalidData`: the record was not a message of this protocol version; end the server.
    /// - Without clusterd, those of accept(2).
    pub async fn accept(&mut self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        let (channel, asked) = match &self.source {
            Source::Cluster { channel, asked } => (channel, *asked),
            Source::Drained { .. } => return Ok(None),
            Source::Alone(listener) => {
                let (stream, peer) = listener.accept().await?;
                return Ok(Some((stream, canonical(peer))));
            }
        };
        match channel.next().await? {
            Incoming::Connection(stream, peer) => Ok(Some((TcpStream::from_std(stream)?, canonical(peer)))),
            Incoming::Drain => {
                self.source = Source::Drained { asked };
                Ok(None)
            }
        }
    }

    /// The address: under clusterd the one that was asked for, which clients may know by another port
    /// (`--port PUBLIC:WORKER`); otherwise the one that the kernel assigned.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.source {
            Source::Cluster { asked, .. } | Source::Drained { asked } => Ok(*asked),
            Source::Alone(listener) => listener.local_addr(),
        }
    }
}

/// A listener to which no connection comes yet. Dropping it releases the address.
#[derive(Debug)]
pub struct PausedListener {
    source: PausedSource,
    asked: SocketAddr,
}

#[derive(Debug)]
enum PausedSource {
    Cluster(Channel),
    Alone(TcpSocket),
}

impl PausedListener {
    pub(super) async fn bind(address: Address, environment: Environment) -> Result<Self, BindError> {
        let asked = address.asked();
        if let Some(socket) = environment.socket {
            let token = token(environment.token)?;
            if let Attached::Channel(channel) = channel::attach(socket, token, asked, ATTACH_TIMEOUT).await? {
                let source = PausedSource::Cluster(channel);
                return Ok(Self { source, asked });
            }
        }
        let socket = bind_alone(address).map_err(|cause| BindError::Tcp { address: asked, cause })?;
        let source = PausedSource::Alone(socket);
        Ok(Self { source, asked })
    }

    /// Lets connections come. Never waits.
    ///
    /// # Errors
    /// [`BindError::Attach`] if clusterd is gone; [`BindError::Tcp`] if listen(2) fails, for instance because another
    /// process listens on that address.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn ready(self) -> Result<Listener, BindError> {
        let asked = self.asked;
        let source = match self.source {
            PausedSource::Cluster(channel) => {
                channel
                    .send(wire::FromWorker::Listening)
                    .map_err(|cause| BindError::Attach { address: asked, cause })?;
                Source::Cluster { channel, asked }
            }
            PausedSource::Alone(socket) => socket
                .listen(BACKLOG)
                .map(Source::Alone)
                .map_err(|cause| BindError::Tcp { address: asked, cause })?,
        };
        Ok(Listener { source })
    }
}

/// What clusterd sets for its workers, as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) socket: Option<OsString>,
    pub(super) token: Option<OsString>,
}

impl Environment {
    fn of_this_process() -> Self {
        Self { socket: std::env::var_os(wire::ENV_SOCKET), token: std::env::var_os(wire::ENV_TOKEN) }
    }
}

fn token(variable: Option<OsString>) -> Result<wire::Token, BindError> {
    let refuse = |problem| BindError::Environment { variable: wire::ENV_TOKEN, problem };
    let token = variable.ok_or_else(|| refuse("is not set"))?;
    wire::Token::from_hex(token.as_encoded_bytes()).ok_or_else(|| refuse("is not 32 hexadecimal digits"))
}

/// Binds a listener of its own. IPv6 can be switched off in the kernel; a port on every address then means IPv4.
fn bind_alone(address: Address) -> io::Result<TcpSocket> {
    let port = match address {
        Address::Exact(address) => return bind_exact(address),
        Address::Port(port) => port,
    };
    let no_ipv6 = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(|errno| Some(errno.raw_os_error()));
    match bind_exact((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if no_ipv6.contains(&error.raw_os_error()) => {
            bind_exact((Ipv4Addr::UNSPECIFIED, port).into())
        }
        bound => bound,
    }
}

fn bind_exact(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// accept(2) on a dual-stack listener gives a client that connected by IPv4 a mapped address, `::ffff:192.0.2.1`.
fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, peer.port()).into(),
        IpAddr::V6(_) => peer,
    }
}
