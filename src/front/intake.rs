//! Where a service's connections come from: its public sockets, and pauses when the system is short.
//!
//! It keeps no connection, and knows neither who gets it nor who may come.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::arrival::{Arrival, Arrivals};
use super::bound::{Bound, BoundAddress, ListeningSocket};
use super::connection::Connection;
use super::inheritance;
use super::listener::Listener;
use super::public_socket::{LAST_HANDSHAKES, PublicSocket};
use super::snapshot::{AddressSnapshot, IntakeSnapshot, wrong};
use crate::ids::{ServiceId, WorkerId};
use crate::protocol::wire::SocketOption;
use crate::sys::closer;

/// How long nothing is accepted or given after the kernel ran out of descriptors or memory.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// How long until a public socket that cannot be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long too many descriptors may wait to be closed before that is logged: what lingers is given up sooner.
const CLOSING: Duration = Duration::from_millis(200);

/// How often a lasting shortage is logged.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// The public sockets of one service.
#[derive(Debug)]
pub(super) struct Intake {
    service: ServiceId,
    sockets: Vec<Socket>,
    /// Each public address, and how many of the sockets are its own, in their order.
    addresses: Vec<(SocketAddr, usize)>,
    /// Which of them is asked first, so that none keeps the others waiting.
    next: usize,
    state: State,
    paused_until: Option<Instant>,
    retry_at: Option<Instant>,
    /// When it is logged that what has to be closed first keeps clients out.
    closing_until: Option<Instant>,
    /// When the next shortage may be logged.
    complain_from: Option<Instant>,
}

#[derive(Debug)]
enum Socket {
    /// It listens when workers do.
    Switched(PublicSocket),
    /// It listens from the start to the end.
    Listening { listener: Listener, is_inherited: bool },
}

#[derive(Debug)]
enum State {
    /// Those may come who arrive so.
    Open(Arrivals),
    /// Nobody may, and those who have come before are accepted.
    Closing {
        until: Instant,
    },
    Closed,
}

impl Intake {
    /// Watches the sockets of these addresses.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn new(service: ServiceId, bound: Vec<Bound>) -> io::Result<Self> {
        let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
        for bound in bound {
            let (address, known) = (bound.address(), sockets.len());
            match bound {
                Bound::Address(address) => sockets.extend(address.sockets.into_iter().map(Socket::Switched)),
                Bound::Socket(socket) => {
                    let (takes, is_inherited) = (socket.takes(), socket.is_inherited());
                    let listener = Listener::watch(socket.into_socket(), takes, Vec::new())?;
                    sockets.push(Socket::Listening { listener, is_inherited });
                }
            }
            addresses.push((address, sockets.len() - known));
        }
        Ok(Self { sockets, addresses, ..Self::empty(service) })
    }

    /// None.
    pub(super) fn empty(service: ServiceId) -> Self {
        let state = State::Open(Arrivals::default());
        Self {
            service,
            sockets: Vec::new(),
            addresses: Vec::new(),
            next: 0,
            state,
            paused_until: None,
            retry_at: None,
            closing_until: None,
            complain_from: None,
        }
    }

    /// Whether nobody may come any more.
    pub(super) fn is_closing(&self) -> bool {
        !matches!(self.state, State::Open(_))
    }

    /// Whether there is one address: one socket that listens from the start, or one for each way to arrive.
    pub(super) fn has_one_address(&self) -> bool {
        let mut known = Arrivals::default();
        self.sockets.iter().all(|socket| match socket {
            Socket::Switched(socket) => {
                let is_new = !known.has(socket.arrival());
                known = known.with(socket.arrival());
                is_new
            }
            Socket::Listening { .. } => self.sockets.len() == 1,
        })
    }

    /// The addresses as they were before they were watched, and how many connections were in backlogs that are none any
    /// more. What listens from the start goes on with its own.
    pub(super) fn into_bound(self) -> (Vec<Bound>, usize) {
        let (mut bound, mut switched, mut waiting) = (Vec::new(), Vec::new(), 0);
        for socket in self.sockets {
            match socket {
                Socket::Switched(mut socket) => {
                    waiting += socket.refuse_now();
                    switched.push(socket);
                }
                Socket::Listening { listener, is_inherited } => {
                    bound.extend(
                        ListeningSocket::again(listener.into_socket(), is_inherited).map(Bound::Socket),
                    );
                }
            }
        }
        bound.extend(BoundAddress::of(switched).map(Bound::Address));
        (bound, waiting)
    }

    /// As it is written down, while it is not to stop. What it has complained of is not: it may be said once more.
    pub(super) fn snapshot(&self) -> IntakeSnapshot {
        let mut sockets = self.sockets.iter();
        let address = |&(address, count): &(SocketAddr, usize)| {
            address_snapshot(address, &sockets.by_ref().take(count).collect::<Vec<_>>())
        };
        IntakeSnapshot {
            addresses: self.addresses.iter().filter_map(address).collect(),
            next: self.next,
            paused_until: self.paused_until.map(Into::into),
            retry_at: self.retry_at.map(Into::into),
        }
    }

    /// It stands as it was written down, and those may come who arrive so.
    ///
    /// # Errors
    /// Those of epoll_ctl(2), and that the sockets are others.
    pub(super) fn resume(&mut self, snapshot: IntakeSnapshot, open: Arrivals) -> io::Result<()> {
        let IntakeSnapshot { addresses, next, paused_until, retry_at } = snapshot;
        let mut sockets = self.sockets.iter_mut();
        let mut own = || sockets.next().ok_or_else(|| wrong("a public socket is missing"));
        for address in addresses {
            match address {
                AddressSnapshot::Switched { sockets, .. } => {
                    for socket in sockets {
                        let Socket::Switched(own) = own()? else { return Err(other()) };
                        own.resume(socket.state)?;
                    }
                }
                AddressSnapshot::Listening { listener: written, .. } => {
                    let Socket::Listening { listener, .. } = own()? else { return Err(other()) };
                    listener.resume(written);
                }
            }
        }
        self.next = next.checked_rem(self.sockets.len()).unwrap_or_default();
        self.state = State::Open(open);
        (self.paused_until, self.retry_at) = (paused_until.map(Into::into), retry_at.map(Into::into));
        Ok(())
    }

    /// The next connection. There is none while too many descriptors wait to be closed.
    ///
    /// # Errors
    /// As [`Listener::poll_accept`].
    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        if closer::poll_room(cx).is_pending() {
            self.wait_for_closing(Instant::now());
            return Poll::Pending;
        }
        self.closing_until = None;
        let count = self.sockets.len();
        for turn in 0..count {
            let index = (self.next + turn) % count;
            let accepted = match &mut self.sockets[index] {
                Socket::Switched(socket) => socket.poll_accept(cx),
                Socket::Listening { listener, .. } => listener.poll_accept(cx),
            };
            if accepted.is_ready() {
                self.next = (index + 1) % count;
                return accepted;
            }
        }
        Poll::Pending
    }

    /// Whether there is a socket for any who arrive so, or for the same clients.
    pub(super) fn is_for(&self, arrivals: Arrivals) -> bool {
        let arrivals = arrivals.with_twins();
        self.sockets.iter().any(|socket| match socket {
            Socket::Switched(socket) => socket.is_for(arrivals),
            Socket::Listening { listener, .. } => listener.takes(arrivals),
        })
    }

    /// Those may come from now on who arrive so, and nobody else.
    pub(super) fn open(&mut self, arrivals: Arrivals, now: Instant) {
        if let State::Open(open) = &mut self.state {
            *open = arrivals;
            self.switch(now);
        }
    }

    fn switch(&mut self, now: Instant) {
        let State::Open(open) = self.state else { return };
        self.retry_at = None;
        for index in 0..self.sockets.len() {
            let Some((socket, twin)) = self.with_twin(index) else { continue };
            let is_wanted = socket.is_for(open);
            let switched = match (is_wanted, socket.is_accepting()) {
                (true, false) => socket.accept_clients(twin),
                (false, true) => socket.close(now),
                (true, true) | (false, false) => continue,
            };
            let address = socket.address();
            match switched {
                Ok(()) => {
                    debug!(service = %self.service, %address, open = is_wanted, "switched a public socket")
                }
                Err(error) if is_wanted => {
                    self.retry_at = Some(now + RETRY);
                    self.complain(now, |service| {
                        warn!(%service, %address, %error, "cannot listen on a public address; trying again");
                    });
                }
                Err(error) => {
                    debug!(service = %self.service, %address, %error, "cannot filter new connections");
                }
            }
        }
    }

    /// A socket that is switched, and the other one for the same clients.
    fn with_twin(&mut self, index: usize) -> Option<(&mut PublicSocket, Option<&PublicSocket>)> {
        let Socket::Switched(socket) = self.sockets.get(index)? else { return None };
        let (address, arrival) = (socket.address(), socket.arrival());
        let is_twin = |other: &Socket| match other {
            Socket::Switched(other) => {
                let same_clients = other.address().ip().to_canonical() == address.ip().to_canonical();
                same_clients && other.address().port() == address.port() && other.arrival() != arrival
            }
            Socket::Listening { .. } => false,
        };
        let twin = arrival.twin().and_then(|_| self.sockets.iter().position(is_twin));
        let Some(twin) = twin else {
            let Socket::Switched(socket) = self.sockets.get_mut(index)? else { return None };
            return Some((socket, None));
        };
        match self.sockets.get_disjoint_mut([index, twin]) {
            Ok([Socket::Switched(socket), Socket::Switched(twin)]) => Some((socket, Some(twin))),
            Ok(_) | Err(_) => None,
        }
    }

    /// Sets an option of a listener that takes those who arrive so; it holds for all of them. Returns whether it was taken
    /// over.
    pub(super) fn set_option(&mut self, worker: WorkerId, arrivals: Arrivals, option: SocketOption) -> bool {
        if !inheritance::is_inherited(option.level, option.name) {
            return false;
        }
        for socket in &mut self.sockets {
            let set = match socket {
                Socket::Switched(socket) if socket.is_for(arrivals) => socket.set_option(option),
                Socket::Listening { listener, .. } if listener.takes(arrivals) => listener.set_option(option),
                Socket::Switched(_) | Socket::Listening { .. } => continue,
            };
            if let Err(error) = set {
                debug!(%worker, service = %self.service, ?option, %error, "cannot set a worker's socket option");
            }
        }
        true
    }

    /// Nothing is accepted or given for a moment: the system is short of something.
    pub(super) fn pause(&mut self, what: &str, error: &io::Error) {
        let now = Instant::now();
        self.paused_until = Some(now + PAUSE);
        self.complain(now, |service| warn!(%service, %error, "{what}"));
    }

    fn complain(&mut self, now: Instant, say: impl FnOnce(ServiceId)) {
        if self.complain_from.is_none_or(|from| from <= now) {
            self.complain_from = Some(now + COMPLAINTS);
            say(self.service);
        }
    }

    /// Nothing is accepted before some of what waits to be closed is.
    fn wait_for_closing(&mut self, now: Instant) {
        self.closing_until.get_or_insert(now + CLOSING);
    }

    /// Complains if that has lasted.
    fn see_closing(&mut self, now: Instant, is_full: bool) {
        if self.closing_until.is_none_or(|until| until > now) {
            return;
        }
        self.closing_until = is_full.then_some(now + COMPLAINTS);
        if is_full {
            self.complain(now, |service| {
                warn!(%service, "too many descriptors wait to be closed; clients wait in the kernel's backlog");
            });
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Lets no new connection begin, for good. Those that clients have already established are still accepted; at an
    /// inherited socket they wait for whoever listens with it next.
    pub(super) fn stop(&mut self, now: Instant) {
        if !matches!(self.state, State::Open(_)) {
            return;
        }
        self.state = State::Closing { until: now + LAST_HANDSHAKES };
        self.sockets.retain(|socket| match socket {
            Socket::Switched(socket) => socket.listens(),
            Socket::Listening { is_inherited, .. } => !is_inherited,
        });
        for socket in &mut self.sockets {
            let kept_out = match socket {
                Socket::Switched(socket) => socket.close(now),
                Socket::Listening { listener, .. } => listener.keep_out(),
            };
            if let Err(error) = kept_out {
                debug!(service = %self.service, %error, "cannot filter new connections while stopping");
            }
        }
    }

    /// Ends a pause, and closes sockets when the last handshakes had their time and nobody is left in the backlogs.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        self.see_closing(now, closer::is_full());
        match self.state {
            State::Open(_) => self.refuse_late(now),
            State::Closing { until } if until <= now => {
                if self.sockets.iter().all(Socket::has_empty_backlog) {
                    self.sockets.clear();
                    self.state = State::Closed;
                } else {
                    self.state = State::Closing { until: now + PAUSE };
                }
            }
            State::Closing { .. } | State::Closed => {}
        }
    }

    /// Refuses clients where they were kept out, once all are accepted who came before.
    fn refuse_late(&mut self, now: Instant) {
        let mut closed = Vec::new();
        for socket in self.sockets.iter_mut().filter_map(Socket::switched) {
            match socket.tick(now) {
                Ok(false) => {}
                Ok(true) => closed.push(socket.address().port()),
                Err(error) => {
                    let address = socket.address();
                    debug!(service = %self.service, %address, %error, "cannot refuse clients");
                }
            }
        }
        for port in closed {
            let v6 = self
                .sockets
                .iter_mut()
                .filter_map(Socket::switched)
                .find(|socket| socket.arrival() == Arrival::V6 && socket.address().port() == port);
            PublicSocket::share_no_longer(port, v6.as_deref());
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.switch(now);
        }
    }

    /// When [`Intake::tick`] is next needed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ends = match self.state {
            State::Open(_) => self.sockets.iter().filter_map(Socket::deadline).chain(self.retry_at).min(),
            State::Closing { until } => Some(until),
            State::Closed => None,
        };
        ends.into_iter().chain(self.paused_until).chain(self.closing_until).min()
    }

    /// Whether it was stopped, and everybody was accepted.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}

/// A public address with its sockets.
fn address_snapshot(address: SocketAddr, sockets: &[&Socket]) -> Option<AddressSnapshot> {
    if let [Socket::Listening { listener, is_inherited }] = sockets {
        return Some(AddressSnapshot::Listening {
            listener: listener.snapshot(),
            is_inherited: *is_inherited,
        });
    }
    let switched = sockets.iter().filter_map(|socket| match socket {
        Socket::Switched(socket) => Some(socket.snapshot()),
        Socket::Listening { .. } => None,
    });
    let sockets: Vec<_> = switched.collect();
    (!sockets.is_empty()).then_some(AddressSnapshot::Switched { address, sockets })
}

fn other() -> io::Error {
    wrong("a public socket is of another kind")
}

impl Socket {
    fn switched(&mut self) -> Option<&mut PublicSocket> {
        match self {
            Socket::Switched(socket) => Some(socket),
            Socket::Listening { .. } => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Socket::Switched(socket) => socket.deadline(),
            Socket::Listening { .. } => None,
        }
    }

    fn has_empty_backlog(&self) -> bool {
        match self {
            Socket::Switched(socket) => socket.has_empty_backlog(),
            Socket::Listening { listener, .. } => listener.has_empty_backlog(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_closing_lasts_is_told_after_a_while_and_not_often() {
        let mut intake = Intake::new(ServiceId::Opened(0), Vec::new()).unwrap();
        let start = Instant::now();
        let (told, again) = (start + CLOSING, start + CLOSING + COMPLAINTS);
        intake.wait_for_closing(start);
        intake.wait_for_closing(start + CLOSING / 2);
        // When it is looked, whether too much waits then, when it may be told next, and when it is looked next.
        let steps = [
            (start + CLOSING / 2, true, None, Some(told)),
            (told, true, Some(again), Some(again)),
            (again - CLOSING, true, Some(again), Some(again)),
            (again, true, Some(again + COMPLAINTS), Some(again + COMPLAINTS)),
            (again + COMPLAINTS, false, Some(again + COMPLAINTS), None),
        ];
        for (now, is_full, complain_from, deadline) in steps {
            intake.see_closing(now, is_full);
            assert_eq!((intake.complain_from, intake.deadline()), (complain_from, deadline), "{now:?}");
        }
        intake.wait_for_closing(start);
        intake.see_closing(told, false);
        assert_eq!(intake.deadline(), None, "it was short");
    }
}
