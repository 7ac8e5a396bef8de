//! The library for Rust servers: a listener that is served by clusterd when there is one, and by the kernel when not.
//!
//! It accepts and no more: it neither serves a protocol nor limits how many connections are open.
//!
//! A server that runs under clusterd unchanged needs nothing of this. What the library adds to the preloaded shim is
//! that the server says itself when it is ready, and that it hears when no further connection will come:
//!
//! ```no_run
//! use clusterd::worker::Listener;
//! use tokio::io::AsyncWriteExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut listener = Listener::bind(3000).await?;
//! let mut open = tokio::task::JoinSet::new();
//! while let Some((mut stream, peer)) = listener.accept().await? {
//!     open.spawn(async move { stream.write_all(format!("hello, {peer}\n").as_bytes()).await });
//! }
//! // No further connection will come: finish what is open.
//! open.join_all().await;
//! # Ok(())
//! # }
//! ```
//!
//! Without clusterd (no `CLUSTERD_ATTACH_SOCKET` in the environment) the same program listens by itself.

mod channel;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::protocol::wire;
use channel::{Attached, Channel, Incoming};

/// How long the primary may take to answer an attach.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);

/// The backlog of a listener of its own, as tokio's `TcpListener::bind` sets it.
const BACKLOG: u32 = 1024;

/// Where to listen: a port on every address of the machine, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Both families where there is IPv6, else IPv4 alone.
    Port(u16),
    /// Just this address.
    Exact(SocketAddr),
}

impl Address {
    /// The address as it is asked for, with `[::]` for every one.
    fn asked(self) -> SocketAddr {
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

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// `CLUSTERD_ATTACH_SOCKET` is set, but what belongs to it is missing or damaged.
    #[error(
        "cannot attach to clusterd: {variable} {problem}; \
         pass the environment on as clusterd set it, or unset CLUSTERD_ATTACH_SOCKET to run without clusterd"
    )]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The attach socket cannot be reached.
    #[error(
        "cannot connect to clusterd at {socket}: {cause}; \
         is it still running? unset CLUSTERD_ATTACH_SOCKET to run without it"
    )]
    Unreachable {
        /// The attach socket, as it stands in the environment.
        socket: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The primary does not take this process for one of its workers.
    #[error(
        "clusterd refused to serve {address}: this process has not the token of a running worker, or runs as \
         another user than clusterd; start the server through clusterd, or unset CLUSTERD_ATTACH_SOCKET"
    )]
    NotAdmitted {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The primary cannot take another listener now.
    #[error(
        "clusterd refused to serve {address}: it has as many listeners as it can take; close some, then try again"
    )]
    Full {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The primary serves nothing but Node's cluster workers.
    #[error(
        "clusterd refused to serve {address}: with `--policy shared` it serves Node's cluster workers only; start it \
         with `--policy round-robin`"
    )]
    Shared {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The primary did not answer in time.
    #[error("clusterd did not answer at {socket} within {} s; is it stopped or overloaded?", ATTACH_TIMEOUT.as_secs())]
    Timeout {
        /// The attach socket, as it stands in the environment.
        socket: String,
    },
    /// The primary's answer failed to come, or to make sense.
    #[error(
        "cannot attach to clusterd for {address}: {cause}; are the server's clusterd library and the command of one version?"
    )]
    Attach {
        /// The address that was asked for.
        address: SocketAddr,
        /// What went wrong.
        cause: io::Error,
    },
    /// There is no clusterd, or it does not serve this port, and the address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Tcp {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// A listener from which connections come. Dropping it stops that; what is open stays open.
#[derive(Debug)]
pub struct Listener {
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The primary accepts and hands over.
    Cluster { channel: Channel, asked: SocketAddr },
    /// The primary said that no further connection will come.
    Drained { asked: SocketAddr },
    /// There is no primary, or it does not serve this port.
    Alone(TcpListener),
}

impl Listener {
    /// Listens on a port or an address, ready for connections at once. See [`Listener::bind_paused`] for a server
    /// that has more to do first.
    ///
    /// # Errors
    /// [`BindError`], each of which says what would help.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn bind(address: impl Into<Address>) -> Result<Self, BindError> {
        Self::bind_paused(address).await?.ready()
    }

    /// Takes a port or an address, and lets no connection come before [`Paused::ready`].
    ///
    /// # Errors
    /// [`BindError`], each of which says what would help.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn bind_paused(address: impl Into<Address>) -> Result<Paused, BindError> {
        Paused::bind(address.into(), Environment::of_this_process()).await
    }

    /// The next connection, and its client; `None` when the primary said that no further one will come: finish
    /// what is open, and exit. A client that connects by IPv4 has an IPv4 address, however it came.
    ///
    /// Cancel safe: a future that is dropped has taken no connection.
    ///
    /// # Errors
    /// - `UnexpectedEof`: clusterd is gone, and no connection will ever come again; end the server.
    /// - `EMFILE` or `ENFILE` (see [`io::Error::raw_os_error`]): no free descriptor. The connection is not lost; it
    ///   waits, and goes to another worker if it waits too long. Accept again once descriptors have been closed.
    /// - `InvalidData`: what came was not a message of the attach protocol.
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
    /// (`--port PUBLIC:WORKER`); without, the one that the kernel gave.
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

/// A listener to which no connection comes yet. Dropping it gives the address up.
#[derive(Debug)]
pub struct Paused {
    source: PausedSource,
    asked: SocketAddr,
}

#[derive(Debug)]
enum PausedSource {
    Cluster(Channel),
    Alone(TcpSocket),
}

impl Paused {
    async fn bind(address: Address, environment: Environment) -> Result<Self, BindError> {
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

    /// Lets connections come.
    ///
    /// # Errors
    /// [`BindError::Attach`] if clusterd is gone; [`BindError::Tcp`] if listen(2) fails, as when another process
    /// listens on that address.
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
struct Environment {
    socket: Option<std::ffi::OsString>,
    token: Option<std::ffi::OsString>,
}

impl Environment {
    fn of_this_process() -> Self {
        Self { socket: std::env::var_os(wire::ENV_SOCKET), token: std::env::var_os(wire::ENV_TOKEN) }
    }
}

fn token(variable: Option<std::ffi::OsString>) -> Result<wire::Token, BindError> {
    let refuse = |problem| BindError::Environment { variable: wire::ENV_TOKEN, problem };
    let token = variable.ok_or_else(|| refuse("is not set"))?;
    wire::Token::from_hex(token.as_encoded_bytes()).ok_or_else(|| refuse("is not 32 hexadecimal digits"))
}

/// Binds a listener of its own. IPv6 can be switched off in the kernel; a port on every address then means IPv4.
fn bind_alone(address: Address) -> io::Result<TcpSocket> {
    match address {
        Address::Exact(address) => bind_exact(address),
        Address::Port(port) => {
            bind_exact((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|error| match error.raw_os_error() {
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => {
                    bind_exact((Ipv4Addr::UNSPECIFIED, port).into())
                }
                _ => Err(error),
            })
        }
    }
}

fn bind_exact(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// A client of a dual-stack listener that came by IPv4 has a mapped address, `::ffff:192.0.2.1`, in accept(2).
fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, peer.port()).into(),
        IpAddr::V6(_) => peer,
    }
}

#[cfg(test)]
mod tests;
