//! One channel of the attach protocol: gives a worker's listener its connections, and takes them back.
//!
//! It decides neither which connection goes to which worker nor what becomes of one that came back.
//!
//! ```text
//!        Listening          hand_off                    (not taken in time)
//! Bound ────────────▶ Idle ───────────────▶ Busy ──────────────────────────▶ Stalled
//!                      ▲ ▲      all taken     │        take_back, Wake            │
//!                      │ ├────────────────────┘                                   │
//!                      │ ├─────── Resting ◀── Decline ── Busy                     │
//!                      │ └─ Listening ── Paused ◀── Decline, pause ── Busy        │
//!                      └──────────────────────────────────────────────────────────┘
//!                                    the worker has read the Wake
//! ```
//!
//! A busy link may be given more, up to whatever window the front allows: `in_flight` knows which of them the worker
//! has taken. Beside that, a link has a [`Gate`], which tells for whom its worker is there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::Interest;

use super::attachment::{Attachment, ChannelPermit, Holder};
use super::in_flight::{Given, InFlight};
use crate::front::connection::Connection;
use crate::ids::{LinkId, WorkerId};
use crate::protocol::wire::{Endpoint, FromWorker, MAX_MESSAGE, SocketOption, ToWorker};
use crate::sys::seqpacket;
use crate::sys::watched::Watched;

/// A channel to one listener of one worker.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    worker: WorkerId,
    channel: Watched,
    worker_end: OwnedFd,
    holder: Holder,
    timeouts: Timeouts,
    wants_drain: bool,
    relayed: bool,
    gate: Gate,
    /// When to hear the worker again: no descriptor was free for one that it may have sent.
    reads_paused_until: Option<Instant>,
    _permit: ChannelPermit,
    state: State,
    in_flight: InFlight,
    last_handed: Option<Instant>,
}

/// Whose connections a link may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Only clusterd's own, until the worker is ready.
    Held,
    /// Everybody's.
    Open,
    /// Nobody's, for good.
    Retired,
}

/// How long a hand-off may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Longer than this, and one may ask whether anyone is there.
    pub slow: Duration,
    /// Longer than this, and the worker counts as stuck.
    pub timeout: Duration,
}

/// The diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Bound,
    Idle,
    /// Of what was given, something was not yet told to be taken. This is due for the next of them.
    Busy {
        due: Due,
        at: Instant,
    },
    Resting {
        until: Instant,
    },
    Paused,
    Stalled,
}

/// How long a worker that declined a connection gets no other.
const REST: Duration = Duration::from_millis(100);

/// How long a worker is not heard when no descriptor is free.
const DEAF: Duration = Duration::from_millis(50);

/// How many messages are heard at the end of a link: the other end may have said many.
const UNHEARD: usize = 64;

/// What a link has seen.
#[derive(Debug)]
pub enum LinkEvent {
    /// The server listens now, and the link is idle.
    Listening,
    /// The worker has taken the connection that was given at `since`; the link is idle again if it was the last.
    Taken {
        /// When the connection was given.
        since: Instant,
    },
    /// The worker that was stalled moves again, and the link is idle.
    Moving,
    /// The server has set an option on its listener.
    SetOption(SocketOption),
    /// The worker gives the connection back, and rests for a moment.
    Declined(Connection),
    /// The worker gives the connection back, and counts as stalled until it says that it moves.
    Paused(Connection),
    /// The worker has said again what was known.
    Nothing,
    /// The other end does not speak the protocol, or the channel failed: the link is of no use any more.
    Broken(Fault),
}

/// Why a link is broken.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// A record that is no message, or one that has no place in this state.
    Malformed,
    /// The channel was shut down, or failed in this way.
    Channel(io::ErrorKind),
}

/// A message and its descriptor, or why there is none.
type Said = Result<(FromWorker, Option<OwnedFd>), Fault>;

/// What came of listening to a worker.
enum Heard {
    /// This.
    Said(Said),
    /// There is nothing that was not heard before.
    Nothing,
    /// There is something, and no descriptor is free for the one that may be beside it.
    NoRoom,
}

/// A connection that could not be given, and why.
#[derive(Debug)]
pub struct NotGiven {
    /// The connection, still ours.
    pub connection: Connection,
    /// What sendmsg(2) said.
    pub error: io::Error,
}

/// What is due on a link at a certain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The connection waits longer than a hand-off takes when all is well.
    Slow,
    /// The hand-off timeout is over.
    TimedOut,
    /// A worker that declined a connection may be given one again: the link is idle.
    Rested,
}

impl Link {
    /// Watches the channel of a new attachment.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn new(attachment: Attachment, timeouts: Timeouts, gate: Gate) -> io::Result<Self> {
        Ok(Self {
            id: attachment.permit.link(),
            worker: attachment.worker,
            channel: Watched::new(attachment.channel, Interest::READABLE | Interest::WRITABLE)?,
            worker_end: attachment.worker_end,
            holder: attachment.holder,
            timeouts,
            wants_drain: attachment.wants_drain,
            relayed: attachment.relayed,
            gate,
            reads_paused_until: None,
            _permit: attachment.permit,
            state: State::Bound,
            in_flight: InFlight::default(),
            last_handed: None,
        })
    }

    /// The link's name.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Whose listener this is.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Where to look whether anyone still holds the worker's end.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// Whether it can be given a client's connection.
    pub fn is_available(&self) -> bool {
        self.state == State::Idle && self.gate == Gate::Open
    }

    /// Whether it can be given another client's connection while it is busy. One at a time goes to a relay, which may
    /// decline it.
    pub fn may_be_given_ahead(&self) -> bool {
        self.is_busy() && self.gate == Gate::Open && !self.relayed
    }

    /// How many connections lie in the channel, as far as is known.
    pub fn untaken(&self) -> usize {
        self.in_flight.untaken()
    }

    /// Whether the other end passes connections on, so that they are not taken back from it while it lives.
    pub fn is_relayed(&self) -> bool {
        self.relayed
    }

    /// Whether it can be given a connection of clusterd's own.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle && self.gate != Gate::Retired
    }

    /// Whether the server listens, be it for clients or not.
    pub fn has_listened(&self) -> bool {
        self.state != State::Bound
    }

    /// Whether it gets no connection any more.
    pub fn is_retired(&self) -> bool {
        self.gate == Gate::Retired
    }

    /// Whether the worker says by its listening that it is ready: who uses the library does, for it listens then.
    pub fn speaks_for_itself(&self) -> bool {
        self.wants_drain
    }

    /// Whether a connection was given and not yet told to be taken.
    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Busy { .. })
    }

    /// Whether it left a connection untaken and has not moved since.
    pub fn is_stalled(&self) -> bool {
        matches!(self.state, State::Stalled | State::Paused)
    }

    /// Whether the server listens, and clients' connections may come to it.
    pub fn is_listening(&self) -> bool {
        self.state != State::Bound && self.gate == Gate::Open
    }

    /// When a connection was last given; `None` sorts first.
    pub fn last_handed(&self) -> Option<Instant> {
        self.last_handed
    }

    /// Gives the worker a connection and closes the primary's copy.
    ///
    /// # Errors
    /// The connection and what sendmsg(2) said; the link is as it was.
    pub fn hand_off(&mut self, connection: Connection, now: Instant) -> Result<(), NotGiven> {
        let Connection { peer, accepted, .. } = connection;
        let mut buffer = [0; MAX_MESSAGE];
        let record = ToWorker::Connection { peer }.encode(&mut buffer);
        if let Err(error) = seqpacket::send(&self.channel, record, Some(connection.socket.as_fd())) {
            return Err(NotGiven { connection, error });
        }
        self.in_flight.push(Given { peer, accepted, since: now, size: record.len() });
        self.last_handed = Some(now);
        if !self.is_busy() {
            self.wait_from(now);
        }
        Ok(())
    }

    /// The next connection in the channel has its turn from now on.
    fn wait_from(&mut self, now: Instant) {
        self.state = State::Busy { due: Due::Slow, at: now + self.timeouts.slow.min(self.timeouts.timeout) };
    }

    /// What the worker has done since the last call. Ready as long as there is more to tell.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        self.reads_paused_until = None;
        if let Poll::Ready(said) = self.poll_said(cx) {
            let event = match said {
                Ok((FromWorker::Decline { peer, pause }, Some(socket))) => self.declined(socket, peer, pause),
                Ok((message, _)) => self.hear(message),
                Err(fault) => LinkEvent::Broken(fault),
            };
            return Poll::Ready(event);
        }
        let is_awaited =
            matches!(self.state, State::Busy { .. } | State::Stalled) || self.in_flight.has_taken();
        if !is_awaited || self.reads_paused_until.is_some() {
            return Poll::Pending;
        }
        if !self.in_flight.has_taken()
            && let Err(error) = ready!(self.poll_received(cx))
        {
            return Poll::Ready(LinkEvent::Broken(Fault::Channel(error.kind())));
        }
        // Who declines says so before it receives. It may have done both since it was heard last.
        if self.relayed {
            match self.listen() {
                Heard::Said(Ok((FromWorker::Decline { peer, pause }, Some(socket)))) => {
                    return Poll::Ready(self.declined(socket, peer, pause));
                }
                Heard::NoRoom => return self.be_deaf(),
                Heard::Said(_) | Heard::Nothing => {}
            }
        }
        Poll::Ready(self.next_taken().unwrap_or_else(|| {
            self.state = State::Idle;
            LinkEvent::Moving
        }))
    }

    /// [`LinkEvent::Taken`] if the worker is known to have taken one that was not told. Of a relayed link, only
    /// [`Link::poll`] knows whether it was not declined.
    pub fn next_taken(&mut self) -> Option<LinkEvent> {
        let since = self.in_flight.tell()?.since;
        if self.is_busy() {
            self.wait_from(Instant::now());
            self.settle();
        }
        Some(LinkEvent::Taken { since })
    }

    /// One of those that were given is done with: after the last, a busy link is idle.
    fn settle(&mut self) {
        if self.is_busy() && self.in_flight.is_empty() {
            self.state = State::Idle;
        }
    }

    /// Asks the kernel whether the worker has taken what it was given before `than`, if that was not told:
    /// [`Link::next_taken`] then tells all that it has, whether the kernel has announced it or not.
    pub fn ask_if_older(&mut self, than: Instant) {
        if self.in_flight.oldest().is_some_and(|oldest| oldest.since < than) {
            // A failure shows itself again when the link is polled.
            let _ = self.look();
        }
    }

    fn hear(&mut self, message: FromWorker) -> LinkEvent {
        match message {
            FromWorker::Listening if self.state == State::Bound => {
                self.state = State::Idle;
                LinkEvent::Listening
            }
            FromWorker::Listening if self.state == State::Paused => {
                self.state = State::Idle;
                LinkEvent::Moving
            }
            FromWorker::Listening => LinkEvent::Nothing,
            FromWorker::SetOption(option) => LinkEvent::SetOption(option),
            FromWorker::Attach { .. } | FromWorker::Decline { .. } => LinkEvent::Broken(Fault::Malformed),
        }
    }

    /// The worker is ready: clients' connections may come, unless it is retired.
    pub fn open(&mut self) {
        if self.gate == Gate::Held {
            self.gate = Gate::Open;
        }
    }

    /// The worker gets no connection any more.
    pub fn retire(&mut self) {
        self.gate = Gate::Retired;
    }

    fn declined(&mut self, socket: OwnedFd, peer: Endpoint, pause: bool) -> LinkEvent {
        let Some(Given { accepted, .. }) = self.in_flight.declined(&peer) else {
            return LinkEvent::Broken(Fault::Malformed);
        };
        let connection = Connection { socket, peer, accepted };
        if pause {
            self.state = State::Paused;
            return LinkEvent::Paused(connection);
        }
        self.state = State::Resting { until: Instant::now() + REST };
        LinkEvent::Declined(connection)
    }

    /// The next message from the worker, and the descriptor that came with it.
    fn poll_said(&mut self, cx: &mut Context<'_>) -> Poll<Said> {
        loop {
            let mut guard = match ready!(self.channel.poll_read_ready(cx)) {
                Ok(guard) => guard,
                Err(error) => return Poll::Ready(Err(Fault::Channel(error.kind()))),
            };
            match self.listen() {
                Heard::Said(said) => return Poll::Ready(said),
                Heard::Nothing => guard.clear_ready(),
                Heard::NoRoom => return self.be_deaf(),
            }
        }
    }

    /// What the worker has said by now, if it can be heard. Only while it has a connection may it send a descriptor.
    fn listen(&self) -> Heard {
        if self.is_busy() && matches!(seqpacket::has_record(&self.channel), Ok(false)) {
            return Heard::Nothing;
        }
        if self.is_busy() && seqpacket::room_for_a_descriptor(&self.channel).is_err() {
            return Heard::NoRoom;
        }
        // One byte more than any message, so that a longer record is seen to be longer.
        let mut buffer = [0; MAX_MESSAGE + 1];
        let said = match seqpacket::receive(&self.channel, &mut buffer) {
            Ok(record) if record.len == 0 => Err(Fault::Channel(io::ErrorKind::UnexpectedEof)),
            Ok(record) => match FromWorker::decode(&buffer[..record.len]) {
                Ok(message) => Ok((message, record.fd)),
                Err(_) => Err(Fault::Malformed),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
            Err(error) => Err(Fault::Channel(error.kind())),
        };
        Heard::Said(said)
    }

    /// Leaves what the worker has said where it is, for a moment: received now, it would lose its descriptor.
    fn be_deaf<T>(&mut self) -> Poll<T> {
        self.reads_paused_until = Some(Instant::now() + DEAF);
        Poll::Pending
    }

    /// Ready when the worker has received something that was not told, or everything.
    ///
    /// The kernel signals EPOLLOUT each time a record is received. The readiness is cleared before the question
    /// is asked, so that an answer which changes in between brings another signal.
    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.channel.poll_write_ready(cx))?.clear_ready();
            if self.look()? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Asks the kernel what lies in the channel. Whether the worker has received something that was not told, or
    /// everything.
    fn look(&mut self) -> io::Result<bool> {
        let waiting = seqpacket::waiting_bytes(&self.worker_end)?;
        self.in_flight.left(waiting);
        Ok(self.in_flight.has_taken() || waiting == 0)
    }

    /// When [`Link::due`] next has something to say, or [`Link::poll`] something to try again.
    pub fn deadline(&self) -> Option<Instant> {
        self.ends().into_iter().chain(self.reads_paused_until).min()
    }

    /// When the state ends by itself.
    fn ends(&self) -> Option<Instant> {
        match self.state {
            State::Busy { at, .. } => (!self.relayed).then_some(at),
            State::Resting { until } => Some(until),
            State::Bound | State::Idle | State::Paused | State::Stalled => None,
        }
    }

    /// What is due at `now`. The deadline is in the future afterwards: a timeout that could not be acted on is due
    /// again later.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if self.ends().is_none_or(|end| end > now) {
            return None;
        }
        let State::Busy { due, at } = &mut self.state else {
            self.state = State::Idle;
            return Some(Due::Rested);
        };
        let said = *due;
        let Timeouts { slow, timeout } = self.timeouts;
        *at = match said {
            Due::Slow => (*at + timeout.saturating_sub(slow)).max(now),
            Due::TimedOut | Due::Rested => now + timeout,
        };
        *due = Due::TimedOut;
        Some(said)
    }

    /// Leaves a [`ToWorker::Wake`] in a channel from which all was taken back: the link is stalled until the worker has
    /// read it.
    pub fn stall(&mut self) {
        let mut buffer = [0; MAX_MESSAGE];
        self.state = State::Stalled;
        // A channel that was just emptied has room. If it fails all the same, the link stays stalled, which
        // costs a worker that failed to answer its share of the connections, and no connection.
        let _ = seqpacket::send(&self.channel, ToWorker::Wake.encode(&mut buffer), None);
    }

    /// Takes back the next connection that the worker has not taken, if there is one. [`Link::poll`] tells those that
    /// it has.
    ///
    /// # Errors
    /// Those of recvmsg(2), and that there is no descriptor free.
    pub fn take_back(&mut self) -> io::Result<Option<Connection>> {
        while self.in_flight.untaken() > 0 {
            seqpacket::room_for_a_descriptor(&self.worker_end)?;
            let mut buffer = [0; MAX_MESSAGE];
            let record = match seqpacket::receive(&self.worker_end, &mut buffer) {
                Ok(record) => record,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            if record.len == 0 {
                break;
            }
            let said = ToWorker::decode(&buffer[..record.len]);
            if let (Ok(ToWorker::Connection { peer }), Some(socket)) = (said, record.fd) {
                // One that the worker has declined, and not yet received, is not among them.
                let Some(Given { accepted, .. }) = self.in_flight.taken_back(&peer) else { continue };
                self.settle();
                return Ok(Some(Connection { socket, peer, accepted }));
            }
        }
        self.in_flight.left(0);
        Ok(None)
    }

    /// Takes back a connection at the end of the link: as [`Link::take_back`], or else one that the other end has
    /// given back, which was not heard yet. Who declines says so before it receives.
    ///
    /// # Errors
    /// Those of recvmsg(2), and that there is no descriptor free.
    pub fn recover(&mut self) -> io::Result<Option<Connection>> {
        if let Some(connection) = self.take_back()? {
            return Ok(Some(connection));
        }
        if !self.is_busy() {
            return Ok(None);
        }
        for _ in 0..UNHEARD {
            match self.listen() {
                Heard::Said(Ok((FromWorker::Decline { peer, .. }, Some(socket)))) => {
                    let Some(Given { accepted, .. }) = self.in_flight.declined(&peer) else { continue };
                    self.settle();
                    return Ok(Some(Connection { socket, peer, accepted }));
                }
                Heard::Said(Ok(_)) => {}
                Heard::Said(Err(_)) | Heard::Nothing => return Ok(None),
                Heard::NoRoom => return Err(io::Error::from_raw_os_error(libc::EMFILE)),
            }
        }
        Ok(None)
    }

    /// Tells a worker that understands it that no further connection will come. To be said when the link is not busy:
    /// a worker that has not received it looks as if it had not received the connection before it.
    pub fn drain(&self) {
        if self.wants_drain {
            let mut buffer = [0; MAX_MESSAGE];
            // A worker that cannot be told is stopped by its signal like any other.
            let _ = seqpacket::send(&self.channel, ToWorker::Drain.encode(&mut buffer), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::links::ChannelPermits;
    use crate::ids::{ServiceId, Slot, WorkerPort};

    const PEER: Endpoint = Endpoint::V4 { address: [192, 0, 2, 7], port: 4321 };

    /// A link that has given its worker a connection, and the worker's end.
    fn busy_link() -> (Link, OwnedFd) {
        let (channel, workers) = seqpacket::pair().unwrap();
        let attachment = Attachment {
            worker: WorkerId { slot: Slot(1), launch: 1 },
            service: ServiceId::Port(WorkerPort(3000)),
            channel,
            worker_end: workers.try_clone().unwrap(),
            holder: Holder { inode: 0, pid: 0 },
            wants_drain: false,
            relayed: true,
            permit: ChannelPermits::new(1).take().unwrap(),
        };
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut link = Link::new(attachment, Timeouts { slow: second, timeout: second }, Gate::Open).unwrap();
        let socket = seqpacket::pair().unwrap().0;
        link.hand_off(Connection { socket, peer: PEER, accepted: now }, now).unwrap();
        (link, workers)
    }

    /// Sends the connection back, and receives it only if it is said so.
    fn decline(workers: &OwnedFd, receives: bool) {
        let mut buffer = [0; MAX_MESSAGE];
        let connection = seqpacket::peek(workers, &mut buffer).unwrap().fd.unwrap();
        for message in [FromWorker::Listening, FromWorker::Decline { peer: PEER, pause: true }] {
            let fd = matches!(message, FromWorker::Decline { .. }).then(|| connection.as_fd());
            seqpacket::send(workers, message.encode(&mut [0; MAX_MESSAGE]), fd).unwrap();
        }
        if receives {
            seqpacket::receive(workers, &mut buffer).unwrap();
        }
    }

    #[tokio::test]
    async fn at_the_end_of_a_link_its_connection_is_recovered_wherever_it_is() {
        let (mut untaken, _workers) = busy_link();
        assert_eq!(untaken.recover().unwrap().unwrap().peer, PEER);
        for receives in [false, true] {
            let (mut declined, workers) = busy_link();
            decline(&workers, receives);
            assert_eq!(declined.recover().unwrap().unwrap().peer, PEER);
            assert!(declined.recover().unwrap().is_none(), "there is one");
        }
        let (mut taken, workers) = busy_link();
        drop(seqpacket::receive(&workers, &mut [0; MAX_MESSAGE]).unwrap());
        assert!(taken.recover().unwrap().is_none());
        assert!(taken.is_busy(), "it was taken");
    }
}
