//! One channel of the attach protocol: gives a worker's listener its connections, and takes them back.
//!
//! It decides neither which connection goes to which worker nor what becomes of one that came back.
//!
//! ```text
//!        Listening          hand_off                    (not taken in time)
//! Bound ────────────▶ Idle ───────────────▶ Busy ──────────────────────────▶ Stalled
//!                      ▲ ▲        taken       │        take_back, Wake            │
//!                      │ ├────────────────────┘                                   │
//!                      │ ├─────── Resting ◀── Decline ── Busy                     │
//!                      │ └─ Listening ── Paused ◀── Decline, pause ── Busy        │
//!                      └──────────────────────────────────────────────────────────┘
//!                                    the worker has read the Wake
//! ```
//!
//! Beside that, a link has a [`Gate`], which tells for whom its worker is there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::net::SocketAddrUnix;
use tokio::io::Interest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ids::{LinkId, ServiceId, WorkerId};
use crate::protocol::wire::{ChannelName, Endpoint, FromWorker, MAX_MESSAGE, SocketOption, ToWorker};
use crate::sys::seqpacket;
use crate::sys::watched::Watched;

/// An accepted connection on its way to a worker, in non-blocking mode.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: OwnedFd,
    /// The client.
    pub peer: Endpoint,
    /// When it was accepted.
    pub accepted: Instant,
}

/// A channel to a worker's listener, as the attach socket delivered it.
#[derive(Debug)]
pub struct Attachment {
    /// Whose it is.
    pub worker: WorkerId,
    /// What the worker asked to listen on.
    pub service: ServiceId,
    /// The primary's end.
    pub channel: OwnedFd,
    /// A duplicate of the worker's end, through which untaken connections are taken back.
    pub worker_end: OwnedFd,
    /// Who was seen to hold the worker's end.
    pub holder: Holder,
    /// The worker reads drain notices.
    pub wants_drain: bool,
    /// The other end passes connections on, and declines by itself what is not taken in time: nothing is taken back
    /// from it while it lives.
    pub relayed: bool,
    /// Its place among the channels that the primary keeps, and thereby its name.
    pub place: Place,
}

/// The channels that the primary keeps: numbered, and bounded, since each costs it two descriptors.
#[derive(Clone, Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    taken: Arc<AtomicU64>,
}

/// A channel's place, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    link: LinkId,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// The name of the channel that has this place.
    pub fn link(&self) -> LinkId {
        self.link
    }
}

impl Places {
    /// Room for `count` channels.
    pub fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), taken: Arc::default() }
    }

    /// A place, if there is one.
    pub fn take(&self) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Place { link: LinkId(self.taken.fetch_add(1, Ordering::Relaxed)), _permit: permit })
    }
}

/// Where to look whether anyone still holds the worker's end of a channel.
///
/// The primary's duplicate of that end hides its closing, so it has to be looked up in the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The inode of the worker's end, as `/proc/PID/fd` shows it.
    pub inode: u64,
    /// The process that attached, and so the first to look at.
    pub pid: i32,
}

/// The address that a worker's end of a channel is bound to.
///
/// # Errors
/// None for the names that there are: they are shorter than `sun_path`.
pub fn name_address(name: &ChannelName) -> io::Result<SocketAddrUnix> {
    // The zero byte in front is the address type's to write.
    Ok(SocketAddrUnix::new_abstract_name(&name.encode()[1..])?)
}

/// A channel to one listener of one worker.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    worker: WorkerId,
    channel: Watched,
    worker_end: OwnedFd,
    holder: Holder,
    patience: Patience,
    wants_drain: bool,
    relayed: bool,
    gate: Gate,
    /// When to hear the worker again: no descriptor was free for one that it may have sent.
    deaf_until: Option<Instant>,
    _place: Place,
    state: State,
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
pub struct Patience {
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
    Busy { accepted: Instant, since: Instant, due: Due, at: Instant },
    Resting { until: Instant },
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
pub enum Event {
    /// The server listens now, and the link is idle.
    Listening,
    /// The worker has taken the connection that was given at `since`, and the link is idle again.
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
    pub fn new(attachment: Attachment, patience: Patience, gate: Gate) -> io::Result<Self> {
        Ok(Self {
            id: attachment.place.link(),
            worker: attachment.worker,
            channel: Watched::new(attachment.channel, Interest::READABLE | Interest::WRITABLE)?,
            worker_end: attachment.worker_end,
            holder: attachment.holder,
            patience,
            wants_drain: attachment.wants_drain,
            relayed: attachment.relayed,
            gate,
            deaf_until: None,
            _place: attachment.place,
            state: State::Bound,
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

    /// Whether a connection was given and not yet taken.
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
        let mut buffer = [0; MAX_MESSAGE];
        let record = ToWorker::Connection { peer: connection.peer }.encode(&mut buffer);
        match seqpacket::send(&self.channel, record, Some(connection.socket.as_fd())) {
            Ok(()) => {
                self.state = State::Busy {
                    accepted: connection.accepted,
                    since: now,
                    due: Due::Slow,
                    at: now + self.patience.slow.min(self.patience.timeout),
                };
                self.last_handed = Some(now);
                Ok(())
            }
            Err(error) => Err(NotGiven { connection, error }),
        }
    }

    /// What the worker has done since the last call. Ready as long as there is more to tell.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.deaf_until = None;
        if let Poll::Ready(said) = self.poll_said(cx) {
            let event = match said {
                Ok((FromWorker::Decline { peer, pause }, Some(socket))) => self.declined(socket, peer, pause),
                Ok((message, _)) => self.hear(message),
                Err(fault) => Event::Broken(fault),
            };
            return Poll::Ready(event);
        }
        let is_awaited = matches!(self.state, State::Busy { .. } | State::Stalled);
        if !is_awaited || self.deaf_until.is_some() {
            return Poll::Pending;
        }
        if let Err(error) = ready!(self.poll_emptied(cx)) {
            return Poll::Ready(Event::Broken(Fault::Channel(error.kind())));
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
        let event = match self.state {
            State::Busy { since, .. } => Event::Taken { since },
            _ => Event::Moving,
        };
        self.state = State::Idle;
        Poll::Ready(event)
    }

    /// [`Event::Taken`] if the worker has taken a connection that it was given before `than`: asked of the kernel now,
    /// whether it has announced it or not. A relayed channel's worker may decline, and is left to say so.
    pub fn older_taken(&mut self, than: Instant) -> Option<Event> {
        let State::Busy { since, .. } = self.state else { return None };
        if since >= than || self.relayed || !seqpacket::is_received(&self.channel).unwrap_or(false) {
            return None;
        }
        self.state = State::Idle;
        Some(Event::Taken { since })
    }

    fn hear(&mut self, message: FromWorker) -> Event {
        match message {
            FromWorker::Listening if self.state == State::Bound => {
                self.state = State::Idle;
                Event::Listening
            }
            FromWorker::Listening if self.state == State::Paused => {
                self.state = State::Idle;
                Event::Moving
            }
            FromWorker::Listening => Event::Nothing,
            FromWorker::SetOption(option) => Event::SetOption(option),
            FromWorker::Attach { .. } | FromWorker::Decline { .. } => Event::Broken(Fault::Malformed),
        }
    }

    /// The worker is ready: clients' connections may come, unless it is retired.
    pub fn open(&mut self) {
        if self.gate == Gate::Held {
            self.gate = Gate::Open;
        }
    }

    /// The worker gets no connection any more. One that it has not taken is taken back and returned; the other end of
    /// a relayed channel may have offered it to the worker by now, and is left to say what became of it.
    ///
    /// # Errors
    /// Those of recvmsg(2): the link stays busy, and its connection is taken back when its time is over.
    pub fn retire(&mut self) -> io::Result<Option<Connection>> {
        self.gate = Gate::Retired;
        if self.relayed { Ok(None) } else { self.take_back() }
    }

    fn declined(&mut self, socket: OwnedFd, peer: Endpoint, pause: bool) -> Event {
        let State::Busy { accepted, .. } = self.state else {
            return Event::Broken(Fault::Malformed);
        };
        let connection = Connection { socket, peer, accepted };
        if pause {
            self.state = State::Paused;
            return Event::Paused(connection);
        }
        self.state = State::Resting { until: Instant::now() + REST };
        Event::Declined(connection)
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
        self.deaf_until = Some(Instant::now() + DEAF);
        Poll::Pending
    }

    /// Ready when the worker has received everything that was sent.
    ///
    /// The kernel signals EPOLLOUT each time a record is received. The readiness is cleared before the question
    /// is asked, so that an answer which changes in between brings another signal.
    fn poll_emptied(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.channel.poll_write_ready(cx))?.clear_ready();
            if seqpacket::is_received(&self.channel)? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// When [`Link::due`] next has something to say, or [`Link::poll`] something to try again.
    pub fn deadline(&self) -> Option<Instant> {
        self.ends().into_iter().chain(self.deaf_until).min()
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
        let State::Busy { since, due, at, .. } = &mut self.state else {
            self.state = State::Idle;
            return Some(Due::Rested);
        };
        let said = *due;
        *at = match said {
            Due::Slow => (*since + self.patience.timeout).max(now),
            Due::TimedOut | Due::Rested => now + self.patience.timeout,
        };
        *due = Due::TimedOut;
        Some(said)
    }

    /// Takes back the connection that the worker has not taken, and leaves a [`ToWorker::Wake`] instead: the link
    /// is stalled until the worker has read it. `None` if the worker was faster, which [`Link::poll`] then tells.
    ///
    /// # Errors
    /// Those of recvmsg(2) and sendmsg(2).
    pub fn stall(&mut self) -> io::Result<Option<Connection>> {
        let Some(connection) = self.take_back()? else {
            return Ok(None);
        };
        let mut buffer = [0; MAX_MESSAGE];
        self.state = State::Stalled;
        // A channel that was just emptied has room. If it fails all the same, the link stays stalled, which
        // costs a worker that failed to answer its share of the connections, and no connection.
        let _ = seqpacket::send(&self.channel, ToWorker::Wake.encode(&mut buffer), None);
        Ok(Some(connection))
    }

    /// Takes back the connection that the worker has not taken, if there is one.
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub fn take_back(&mut self) -> io::Result<Option<Connection>> {
        let State::Busy { accepted, .. } = self.state else {
            return Ok(None);
        };
        seqpacket::room_for_a_descriptor(&self.worker_end)?;
        loop {
            let mut buffer = [0; MAX_MESSAGE];
            let record = match seqpacket::receive(&self.worker_end, &mut buffer) {
                Ok(record) if record.len == 0 => return Ok(None),
                Ok(record) => record,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            let said = ToWorker::decode(&buffer[..record.len]);
            if let (Ok(ToWorker::Connection { peer }), Some(socket)) = (said, record.fd) {
                self.state = State::Idle;
                return Ok(Some(Connection { socket, peer, accepted }));
            }
        }
    }

    /// Takes back the connection at the end of the link: as [`Link::take_back`], or else one that the other end has
    /// given back, which was not heard yet. Who declines says so before it receives.
    ///
    /// # Errors
    /// Those of recvmsg(2), and that there is no descriptor free.
    pub fn recover(&mut self) -> io::Result<Option<Connection>> {
        if let Some(connection) = self.take_back()? {
            return Ok(Some(connection));
        }
        let State::Busy { accepted, .. } = self.state else {
            return Ok(None);
        };
        for _ in 0..UNHEARD {
            match self.listen() {
                Heard::Said(Ok((FromWorker::Decline { peer, .. }, Some(socket)))) => {
                    self.state = State::Idle;
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
    use crate::ids::{Slot, WorkerPort};

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
            place: Places::new(1).take().unwrap(),
        };
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut link = Link::new(attachment, Patience { slow: second, timeout: second }, Gate::Open).unwrap();
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
