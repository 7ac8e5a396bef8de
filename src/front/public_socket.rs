//! One public socket: bound, and refusing clients or accepting them.
//!
//! When it does which is decided in `openness`. Here is what the kernel wants for it:
//!
//! - A socket that is bound and does not listen reserves nothing: whoever sets SO_REUSEADDR may bind the same port and
//!   listen. So that option is off while clients are refused, and the port stays clusterd's. It is on while the socket
//!   listens, which nobody else can then: connections inherit it, and without it their last packets (TIME_WAIT, tcp(7))
//!   would keep clusterd's next start from the port.
//! - shutdown(2) makes a listening socket one that refuses, and it can listen again. The kernel forgets a port with it that
//!   was not asked for by number.
//! - The two sockets for IPv4 clients, of the one family and of the other, overlap. SO_REUSEADDR lets one listen while the
//!   other does not, and SO_REUSEPORT lets both. Then the kernel prefers the IPv4 socket.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::net::Shutdown;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::arrival::{Arrival, Arrivals};
use super::listener::{Listener, Takes};
use super::snapshot::{PublicSocketSnapshot, PublicStateSnapshot, wrong};
use crate::carry::{CarriedFd, CarriedFds};
use crate::front::connection::Connection;
use crate::protocol::wire::SocketOption;
use crate::sys::socket;

/// How long handshakes that had begun when new ones were kept out may take to be completed.
pub(super) const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// How often it is looked whether a backlog is empty.
const LOOK: Duration = Duration::from_millis(50);

/// A public socket of one arrival.
#[derive(Debug)]
pub(crate) struct PublicSocket {
    address: SocketAddr,
    arrival: Arrival,
    /// It listens for those who would arrive so.
    wanted_for: Arrivals,
    backlog: i32,
    state: State,
    /// What workers set on their listeners.
    options: Vec<SocketOption>,
}

#[derive(Debug)]
enum State {
    /// It is bound when it is first needed.
    Unbound,
    Refusing(OwnedFd),
    Accepting(Listener),
    /// New clients are kept out, and those who have come before are accepted.
    Closing {
        listener: Listener,
        until: Instant,
    },
}

impl PublicSocket {
    /// Binds it, for the first time on this port, and refuses clients. Port 0 is any that is free.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and listen(2): the latter if somebody else listens there.
    pub(super) fn bound(address: SocketAddr, arrival: Arrival, backlog: i32) -> io::Result<Self> {
        let mut public = Self::unbound(address, arrival, backlog);
        // A port that was not asked for by number would be lost with shutdown(2).
        let chosen = bind(address)?;
        public.address = chosen.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        let socket = if address.port() == 0 { bind(public.address)? } else { chosen };
        rustix::net::listen(&socket, backlog)?;
        refuse(&socket)?;
        public.state = State::Refusing(socket.into());
        Ok(public)
    }

    /// One that is not needed yet.
    pub(super) fn unbound(address: SocketAddr, arrival: Arrival, backlog: i32) -> Self {
        let state = State::Unbound;
        Self { address, arrival, wanted_for: arrival.into(), backlog, state, options: Vec::new() }
    }

    /// It listens for those too who would arrive otherwise: there is no socket for them.
    pub(super) fn also_for(mut self, arrival: Arrival) -> Self {
        self.wanted_for = self.wanted_for.with(arrival);
        self
    }

    /// As it is written down.
    pub(super) fn snapshot(&self) -> PublicSocketSnapshot {
        let &Self { address, arrival, wanted_for, backlog, ref state, ref options } = self;
        let (state, options) = (state.snapshot(), options.clone());
        PublicSocketSnapshot { address, arrival, wanted_for, backlog, options, state }
    }

    /// The same socket in another image, not watched yet: whether it listens is known to the kernel alone until
    /// [`PublicSocket::resume`].
    ///
    /// # Errors
    /// Its descriptor was not carried over, or has two owners.
    pub(super) fn carried(snapshot: &PublicSocketSnapshot, fds: &CarriedFds) -> io::Result<Self> {
        let &PublicSocketSnapshot { address, arrival, wanted_for, backlog, .. } = snapshot;
        let socket = snapshot.state.socket().map(|number| fds.take(number)).transpose()?;
        let state = socket.map_or(State::Unbound, State::Refusing);
        Ok(Self { address, arrival, wanted_for, backlog, state, options: snapshot.options.clone() })
    }

    /// It stands as it was written down.
    ///
    /// # Errors
    /// Those of epoll_ctl(2), and that it has no socket.
    pub(super) fn resume(&mut self, snapshot: PublicStateSnapshot) -> io::Result<()> {
        let (listens, until) = match snapshot {
            PublicStateSnapshot::Unbound | PublicStateSnapshot::Refusing { .. } => return Ok(()),
            PublicStateSnapshot::Accepting { listener } => (listener, None),
            PublicStateSnapshot::Closing { listener, until } => (listener, Some(until)),
        };
        let State::Refusing(socket) = std::mem::replace(&mut self.state, State::Unbound) else {
            return Err(wrong("a public socket that listens is missing"));
        };
        let mut listener = Listener::watch(socket, Takes::Only(self.arrival), Vec::new())?;
        listener.resume(listens);
        self.state = match until {
            None => State::Accepting(listener),
            Some(until) => State::Closing { listener, until: until.into() },
        };
        Ok(())
    }

    /// Whether it is for any of these.
    pub(super) fn is_for(&self, arrivals: Arrivals) -> bool {
        self.wanted_for.has_any(arrivals)
    }

    /// Where it is bound.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How those arrive who come to it.
    pub(super) fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// Whether it listens, as far as the kernel knows.
    pub(super) fn listens(&self) -> bool {
        matches!(self.state, State::Accepting(_) | State::Closing { .. })
    }

    /// Whether clients may come.
    pub(super) fn is_accepting(&self) -> bool {
        matches!(self.state, State::Accepting(_))
    }

    /// Listens, beside the other socket for the same clients if there is one.
    ///
    /// # Errors
    /// Those of socket(2), bind(2), listen(2) and epoll_ctl(2); it refuses clients then as before.
    pub(super) fn accept_clients(&mut self, twin: Option<&PublicSocket>) -> io::Result<()> {
        match std::mem::replace(&mut self.state, State::Unbound) {
            State::Accepting(listener) => self.state = State::Accepting(listener),
            State::Closing { mut listener, until } => {
                if let Err(error) = listener.go_on() {
                    self.state = State::Closing { listener, until };
                    return Err(error);
                }
                self.state = State::Accepting(listener);
            }
            State::Refusing(socket) => self.listen(socket, twin)?,
            State::Unbound => {
                let socket = open(self.address)?;
                beside(&socket, twin, false, || socket.bind(&self.address.into()))?;
                for option in &self.options {
                    // It was permitted on the others, and is not needed to serve.
                    let _ = socket::set_option(&socket, option.level, option.name, option.bytes());
                }
                self.listen(socket.into(), twin)?;
            }
        }
        Ok(())
    }

    fn listen(&mut self, socket: OwnedFd, twin: Option<&PublicSocket>) -> io::Result<()> {
        let listen = || Ok(rustix::net::listen(&socket, self.backlog)?);
        if let Err(error) = beside(&socket, twin, true, listen) {
            self.state = State::Refusing(socket);
            return Err(error);
        }
        let listener = Listener::watch(socket, Takes::Only(self.arrival), self.options.clone())?;
        self.state = State::Accepting(listener);
        Ok(())
    }

    /// Lets no new client in; those who have come are still accepted, and at the end clients are refused.
    ///
    /// # Errors
    /// Those of setsockopt(2): clients may come until then.
    pub(super) fn close(&mut self, now: Instant) -> io::Result<()> {
        match std::mem::replace(&mut self.state, State::Unbound) {
            State::Accepting(mut listener) => {
                let kept_out = listener.keep_out();
                self.state = State::Closing { listener, until: now + LAST_HANDSHAKES };
                kept_out
            }
            other => {
                self.state = other;
                Ok(())
            }
        }
    }

    /// Refuses clients from now on, whoever was in the backlog; how many these were.
    pub(super) fn refuse_now(&mut self) -> usize {
        match std::mem::replace(&mut self.state, State::Unbound) {
            State::Accepting(listener) | State::Closing { listener, .. } => {
                let waiting = socket::backlog_len(&listener).unwrap_or_default();
                let socket = listener.into_socket();
                // It is bound again when it is needed, if this fails.
                if refuse(&socket).and_then(|()| socket::take_new_handshakes(&socket)).is_ok() {
                    self.state = State::Refusing(socket);
                }
                waiting
            }
            state => {
                self.state = state;
                0
            }
        }
    }

    /// How many connections may wait in the backlog.
    pub(super) fn backlog(&self) -> i32 {
        self.backlog
    }

    /// When it is next looked whether all were accepted.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Closing { until, .. } => Some(until),
            State::Unbound | State::Refusing(_) | State::Accepting(_) => None,
        }
    }

    /// Refuses clients from now on, if all have been accepted who came before; whether it was so.
    ///
    /// # Errors
    /// Those of shutdown(2).
    pub(super) fn tick(&mut self, now: Instant) -> io::Result<bool> {
        let State::Closing { listener, until } = &mut self.state else { return Ok(false) };
        if *until > now {
            return Ok(false);
        }
        if !listener.has_empty_backlog() {
            *until = now + LOOK;
            return Ok(false);
        }
        if let State::Closing { listener, .. } = std::mem::replace(&mut self.state, State::Unbound) {
            let socket = listener.into_socket();
            refuse(&socket)?;
            socket::take_new_handshakes(&socket)?;
            self.state = State::Refusing(socket);
        }
        Ok(true)
    }

    /// Whether every connection that clients have established was accepted.
    pub(super) fn has_empty_backlog(&self) -> bool {
        match &self.state {
            State::Accepting(listener) | State::Closing { listener, .. } => listener.has_empty_backlog(),
            State::Unbound | State::Refusing(_) => true,
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// As [`Listener::poll_accept`].
    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        match &mut self.state {
            State::Accepting(listener) | State::Closing { listener, .. } => listener.poll_accept(cx),
            State::Unbound | State::Refusing(_) => Poll::Pending,
        }
    }

    /// Sets an option of a worker's listener, now and on what is bound later.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(super) fn set_option(&mut self, option: SocketOption) -> io::Result<()> {
        if self.options.contains(&option) {
            return Ok(());
        }
        match &mut self.state {
            State::Unbound => {}
            State::Refusing(socket) => {
                socket::set_option(socket, option.level, option.name, option.bytes())?;
            }
            State::Accepting(listener) | State::Closing { listener, .. } => listener.set_option(option)?,
        }
        self.options.retain(|old| (old.level, old.name) != (option.level, option.name));
        self.options.push(option);
        Ok(())
    }

    /// Ends that anybody may share the port who runs as this user and asks for it (SO_REUSEPORT), as two sockets of
    /// clusterd's own did for a moment. The kernel remembers what was last permitted, until another socket that asks for
    /// nothing is bound to the port: one at `[::1]`, where `v6` does not listen, nor anybody else.
    pub(super) fn share_no_longer(port: u16, v6: Option<&PublicSocket>) {
        let v6 = match v6.map(|v6| &v6.state) {
            None => None,
            Some(State::Refusing(socket)) => Some(SockRef::from(socket)),
            Some(_) => return,
        };
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let share = |shares| v6.as_ref().map_or(Ok(()), |v6| v6.set_reuse_address(shares));
        // Where there is no IPv6 there were no two sockets.
        let _ = share(true).and_then(|()| bind(address));
        let _ = share(false);
    }

    /// The socket itself, if it is bound.
    pub(super) fn socket(&self) -> Option<SockRef<'_>> {
        match &self.state {
            State::Unbound => None,
            State::Refusing(socket) => Some(SockRef::from(socket)),
            State::Accepting(listener) | State::Closing { listener, .. } => Some(SockRef::from(listener)),
        }
    }
}

impl State {
    fn snapshot(&self) -> PublicStateSnapshot {
        match self {
            State::Unbound => PublicStateSnapshot::Unbound,
            State::Refusing(socket) => PublicStateSnapshot::Refusing { socket: CarriedFd::of(socket) },
            State::Accepting(listener) => PublicStateSnapshot::Accepting { listener: listener.snapshot() },
            State::Closing { listener, until } => {
                PublicStateSnapshot::Closing { listener: listener.snapshot(), until: (*until).into() }
            }
        }
    }
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_cloexec(true)?;
    socket.set_reuse_address(true)?;
    if let IpAddr::V6(ip) = address.ip() {
        socket.set_only_v6(ip.to_ipv4_mapped().is_none())?;
    }
    Ok(socket)
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = open(address)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// Refuses clients, and keeps the port.
fn refuse(socket: impl AsFd) -> io::Result<()> {
    rustix::net::shutdown(&socket, Shutdown::Read)?;
    SockRef::from(&socket).set_reuse_address(false)
}

/// Binds or listens where the other socket for the same clients does so.
fn beside(
    socket: &impl AsFd,
    twin: Option<&PublicSocket>,
    listens: bool,
    act: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let own = SockRef::from(socket);
    let twin = twin.and_then(|twin| Some((twin.socket()?, twin.listens())));
    own.set_reuse_address(true)?;
    if let Some((twin, listens)) = &twin {
        twin.set_reuse_address(true)?;
        twin.set_reuse_port(*listens)?;
        own.set_reuse_port(*listens)?;
    }
    let acted = act();
    if let Some((twin, listens)) = &twin {
        own.set_reuse_port(false)?;
        twin.set_reuse_port(false)?;
        twin.set_reuse_address(*listens)?;
    }
    own.set_reuse_address(listens && acted.is_ok())?;
    acted
}
