//! One channel of the attach protocol: gives a worker's listener its connections, and takes them back.
//!
//! It decides neither which connection goes to which worker nor what becomes of one that came back. A busy link may be
//! given more, up to whatever window the front allows: `in_flight` knows which of them the worker has taken.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::attachment::{Attachment, ChannelPermit, Holder};
use super::channel::{Channel, Fault, Reading, Received, Recovered};
use super::in_flight::{Given, InFlight};
use super::snapshot::LinkSnapshot;
use super::state::{Due, Gate, LinkState, Listens, Timeouts};
use crate::front::connection::Connection;
use crate::ids::{LinkId, WorkerId};
use crate::protocol::wire::{Endpoint, FromWorker, Linger, SocketOption, ToWorker};
use crate::sys::closer::{Batch, ForeignFd};

/// For so long, a worker that has not taken its connection is only about to: it may wait for a CPU.
const MOMENT: Duration = Duration::from_millis(1);

/// How long a worker's messages are left unread when no descriptor is free.
const READ_PAUSE: Duration = Duration::from_millis(50);

/// How many messages are read at the end of a link: the other end may have sent many.
const LAST_MESSAGES: usize = 64;

/// A channel to one listener of one worker. What it may be given is told by its state.
#[derive(Debug)]
pub(crate) struct Link {
    id: LinkId,
    worker: WorkerId,
    channel: Channel,
    holder: Holder,
    wants_drain: bool,
    /// When to read again: no descriptor was free for one that the worker may have sent.
    reads_paused_until: Option<Instant>,
    _permit: ChannelPermit,
    _registration: Option<Arc<dyn fmt::Debug + Send + Sync>>,
    state: LinkState,
    in_flight: InFlight,
    last_handed: Option<Instant>,
    /// How the connections of this listener linger when they are closed.
    linger: Option<Linger>,
}

/// What a link has seen.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The server listens now, and the link is idle.
    Listening,
    /// The worker has taken the connection that was given at `since`; the link is idle again if it was the last.
    Taken {
        /// When the connection was given.
        since: Instant,
        /// Whether that took so long that it was heard of at once at last.
        was_slow: bool,
    },
    /// The worker that was stalled moves again, and the link is idle.
    Moving,
    /// The worker that was late has moved in time, and the link is idle.
    CaughtUp,
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

/// A connection that could not be given, and why.
#[derive(Debug)]
pub(crate) struct NotGiven {
    /// The connection, still ours.
    pub connection: Connection,
    /// What sendmsg(2) said.
    pub error: io::Error,
}

impl Deref for Link {
    type Target = LinkState;

    fn deref(&self) -> &LinkState {
        &self.state
    }
}

impl Link {
    /// Watches the channel of a new attachment. `wake` is used when [`Link::poll`] has something to tell.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn new(
        attachment: Attachment,
        timeouts: Timeouts,
        gate: Gate,
        wake: Waker,
    ) -> io::Result<Self> {
        Ok(Self {
            id: attachment.permit.link(),
            worker: attachment.worker,
            channel: Channel::new(attachment.channel, attachment.worker_end, wake)?,
            holder: attachment.holder,
            wants_drain: attachment.wants_drain,
            reads_paused_until: None,
            _permit: attachment.permit,
            _registration: attachment.registration,
            state: LinkState::new(gate, attachment.relayed, timeouts),
            in_flight: InFlight::default(),
            last_handed: None,
            linger: attachment.options.iter().find_map(SocketOption::linger).flatten(),
        })
    }

    /// As it is written down, with what is kept for it.
    pub(super) fn snapshot(&self, window: usize, gives_private: bool) -> LinkSnapshot {
        let (channel, worker_end) = self.channel.ends();
        LinkSnapshot {
            id: self.id,
            worker: self.worker,
            channel,
            worker_end,
            holder: self.holder,
            wants_drain: self.wants_drain,
            state: self.state.snapshot(),
            in_flight: self.in_flight.snapshot(),
            last_handed: self.last_handed.map(Into::into),
            linger: self.linger,
            window,
            gives_private,
        }
    }

    /// It stands as it was written down.
    ///
    /// # Errors
    /// What lies in its channel cannot be so.
    pub(super) fn resume(&mut self, snapshot: LinkSnapshot) -> io::Result<()> {
        let LinkSnapshot { state, in_flight, last_handed, linger, .. } = snapshot;
        self.state.resume(state);
        self.in_flight = InFlight::restored(in_flight)?;
        (self.last_handed, self.linger) = (last_handed.map(Into::into), linger);
        Ok(())
    }

    /// The link's name.
    pub(crate) fn id(&self) -> LinkId {
        self.id
    }

    /// Whose listener this is.
    pub(crate) fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Where to look whether anyone still holds the worker's end.
    pub(crate) fn holder(&self) -> Holder {
        self.holder
    }

    /// How many connections lie in the channel, as far as is known.
    pub(crate) fn untaken(&self) -> usize {
        self.in_flight.untaken()
    }

    /// When the first of them was accepted, and whose it is.
    pub(crate) fn oldest_untaken(&self) -> Option<(Instant, Endpoint)> {
        self.in_flight.next().map(|given| (given.accepted, given.peer))
    }

    /// Whether the first of them was given before it had its turn.
    pub(super) fn was_given_ahead(&self) -> bool {
        let turn = self.state.waits_since();
        self.in_flight.next().zip(turn).is_some_and(|(given, turn)| given.since < turn)
    }

    /// Whether the first of them was only just given.
    pub(super) fn is_about_to_take(&self, now: Instant) -> bool {
        self.in_flight.next().is_some_and(|given| now.saturating_duration_since(given.since) < MOMENT)
    }

    /// Whether the worker says by its listening that it is ready: who uses the library does, for it listens then.
    pub(crate) fn speaks_for_itself(&self) -> bool {
        self.wants_drain
    }

    /// When a connection was last given; `None` sorts first.
    pub(crate) fn last_handed(&self) -> Option<Instant> {
        self.last_handed
    }

    /// Gives the worker a connection; the primary's copy is closed, or among those that are to be.
    ///
    /// # Errors
    /// The connection and what sendmsg(2) said; the link is as it was.
    pub(crate) fn hand_off(
        &mut self,
        connection: Connection,
        now: Instant,
        handed: &mut Batch,
    ) -> Result<(), NotGiven> {
        if !self.is_busy() {
            self.channel.expect_taking();
        }
        let size = match self.channel.send(&connection, self.linger) {
            Ok(size) => size,
            Err(error) => return Err(NotGiven { connection, error }),
        };
        let Connection { socket, peer, arrival, accepted } = connection;
        handed.close_connection(socket, now);
        self.in_flight.push(Given { peer, arrival, accepted, since: now, size });
        self.last_handed = Some(now);
        self.state.given(now);
        Ok(())
    }

    /// What the worker has done since the last call. Ready as long as there is more to tell; after that, the waker is
    /// used when there is.
    pub(crate) fn poll(&mut self) -> Poll<LinkEvent> {
        self.reads_paused_until = None;
        match self.channel.poll_read(self.is_busy()) {
            Poll::Ready(Reading::Message(received)) => return Poll::Ready(self.received(received)),
            Poll::Ready(Reading::NoRoom) => return self.pause_reads(),
            Poll::Ready(Reading::Nothing) | Poll::Pending => {}
        }
        if !self.in_flight.has_taken() {
            if !self.state.awaits_taking() {
                return Poll::Pending;
            }
            let in_flight = &mut self.in_flight;
            let taking = self.channel.poll_taking(|bytes| {
                in_flight.left(bytes);
                in_flight.has_taken() || bytes == 0
            });
            match taking {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(LinkEvent::Broken(Fault::Channel(error.kind())));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        // Who declines says so before it receives. It may have done both since its messages were last read.
        if self.is_relayed() {
            match self.channel.read(self.is_busy()) {
                Reading::Message(Ok((FromWorker::Decline { peer, pause }, Some(socket)))) => {
                    return Poll::Ready(self.declined(socket, peer, pause));
                }
                Reading::NoRoom => return self.pause_reads(),
                Reading::Message(_) | Reading::Nothing => {}
            }
        }
        Poll::Ready(self.next_taken().unwrap_or_else(|| match self.state.moves() {
            true => LinkEvent::Moving,
            false => LinkEvent::CaughtUp,
        }))
    }

    /// [`LinkEvent::Taken`] if the worker is known to have taken one that was not told. Of a relayed link, only
    /// [`Link::poll`] knows whether it was not declined.
    pub(crate) fn next_taken(&mut self) -> Option<LinkEvent> {
        let since = self.in_flight.tell()?.since;
        let was_slow = self.state.is_slow();
        if self.in_flight.is_empty() {
            self.state.done(true);
        } else if self.is_busy() {
            self.state.wait_from(Instant::now());
        }
        Some(LinkEvent::Taken { since, was_slow })
    }

    /// Whether the worker has taken one that was not told, and [`Link::poll`] would tell it: not while there is something that
    /// cannot be read.
    pub(super) fn can_tell(&self) -> bool {
        self.in_flight.has_taken() && self.reads_paused_until.is_none()
    }

    /// Where the kernel signals that the worker has received something.
    pub(super) fn signals(&self) -> BorrowedFd<'_> {
        self.channel.signals()
    }

    /// That was signalled: [`Link::poll`] may have something to tell.
    pub(super) fn moved(&mut self) {
        self.channel.moved();
    }

    /// Asks the kernel whether the worker has taken what it was given, before that is heard of: [`Link::next_taken`]
    /// then tells it.
    pub(crate) fn ask(&mut self) {
        // A failure shows itself again when the link is polled.
        if let Ok(bytes) = self.channel.untaken_bytes() {
            self.in_flight.left(bytes);
        }
    }

    fn received(&mut self, received: Received) -> LinkEvent {
        match received {
            Ok((FromWorker::Listening, None)) => match self.state.listens() {
                Listens::Now => LinkEvent::Listening,
                Listens::Again => LinkEvent::Moving,
                Listens::Still => LinkEvent::Nothing,
            },
            Ok((FromWorker::SetOption(option), None)) => {
                if let Some(linger) = option.linger() {
                    self.linger = linger;
                }
                LinkEvent::SetOption(option)
            }
            Ok((FromWorker::Decline { peer, pause }, Some(socket))) => self.declined(socket, peer, pause),
            Ok((_, _)) => LinkEvent::Broken(Fault::Malformed),
            Err(fault) => LinkEvent::Broken(fault),
        }
    }

    fn declined(&mut self, socket: ForeignFd, peer: Endpoint, pause: bool) -> LinkEvent {
        let Some(Given { arrival, accepted, .. }) = self.in_flight.declined(&peer) else {
            return LinkEvent::Broken(Fault::Malformed);
        };
        let connection = Connection { socket, peer, arrival, accepted };
        if pause {
            self.state.pause();
            return LinkEvent::Paused(connection);
        }
        self.state.rest(Instant::now());
        LinkEvent::Declined(connection)
    }

    /// Leaves what the worker has said where it is, for a moment: received now, it would lose its descriptor.
    fn pause_reads<T>(&mut self) -> Poll<T> {
        self.reads_paused_until = Some(Instant::now() + READ_PAUSE);
        Poll::Pending
    }

    /// The worker is ready: clients' connections may come, unless it is retired.
    pub(crate) fn open(&mut self) {
        self.state.open();
    }

    /// The worker gets no connection any more.
    pub(crate) fn retire(&mut self) {
        self.state.retire();
    }

    /// When [`Link::due`] next has something to say, or [`Link::poll`] something to try again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.state.deadline().into_iter().chain(self.reads_paused_until).min()
    }

    /// What is due at `now`. The deadline is in the future afterwards, but for reading, which is [`Link::poll`]'s.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Due> {
        self.state.due(now)
    }

    /// Has the link stalled until the worker has read the [`ToWorker::Wake`] that is left in its channel, from which all
    /// was taken back. Returns whether the worker has not.
    pub(crate) fn stall(&mut self) -> bool {
        if !self.is_bypassed() {
            self.leave_wake();
        } else if matches!(self.channel.untaken_bytes(), Ok(0)) {
            return false;
        }
        self.state.stall();
        true
    }

    /// As [`Link::take_back`], from a worker that is late. If nothing is left then, it gets no other connection until it
    /// has read the [`ToWorker::Wake`] that is left in the channel.
    ///
    /// # Errors
    /// Those of recvmsg(2), and that there is no descriptor free.
    pub(crate) fn bypass(&mut self) -> io::Result<Option<Connection>> {
        let since = self.waits_since();
        let back = self.take_back()?;
        if back.is_some()
            && self.untaken() == 0
            && let Some(since) = since
        {
            self.leave_wake();
            self.state.bypass(since);
        }
        Ok(back)
    }

    fn leave_wake(&mut self) {
        self.channel.expect_taking();
        // A channel that was just emptied has room. If it fails all the same, the link gets nothing for good, which
        // costs a worker that failed to answer its share of the connections, and no connection.
        let _ = self.channel.notify(ToWorker::Wake);
    }

    /// Takes back the next connection that the worker has not taken, if there is one. [`Link::poll`] tells those that
    /// it has.
    ///
    /// # Errors
    /// Those of recvmsg(2), and that there is no descriptor free.
    pub(crate) fn take_back(&mut self) -> io::Result<Option<Connection>> {
        while self.in_flight.untaken() > 0 {
            match self.channel.take_back()? {
                Recovered::Connection { socket, peer } => {
                    // One that the worker has declined, and not yet received, is not among them.
                    let Some(Given { arrival, accepted, .. }) = self.in_flight.taken_back(&peer) else {
                        continue;
                    };
                    self.state.done(self.in_flight.is_empty());
                    return Ok(Some(Connection { socket, peer, arrival, accepted }));
                }
                Recovered::Other => {}
                Recovered::Nothing => break,
            }
        }
        self.in_flight.left(0);
        Ok(None)
    }

    /// Takes back a connection at the end of the link: as [`Link::take_back`], or else one that the other end has
    /// given back, which was not read yet. Who declines says so before it receives.
    ///
    /// # Errors
    /// Those of recvmsg(2), and that there is no descriptor free.
    pub(crate) fn recover(&mut self) -> io::Result<Option<Connection>> {
        if let Some(connection) = self.take_back()? {
            return Ok(Some(connection));
        }
        if !self.is_busy() {
            return Ok(None);
        }
        for _ in 0..LAST_MESSAGES {
            match self.channel.read(self.is_busy()) {
                Reading::Message(Ok((FromWorker::Decline { peer, .. }, Some(socket)))) => {
                    let Some(Given { arrival, accepted, .. }) = self.in_flight.declined(&peer) else {
                        continue;
                    };
                    self.state.done(self.in_flight.is_empty());
                    return Ok(Some(Connection { socket, peer, arrival, accepted }));
                }
                Reading::Message(Ok(_)) => {}
                Reading::Message(Err(_)) | Reading::Nothing => return Ok(None),
                Reading::NoRoom => return Err(io::Error::from_raw_os_error(libc::EMFILE)),
            }
        }
        Ok(None)
    }

    /// Tells a worker that understands it that no further connection will come. To be said when the link is not busy:
    /// a worker that has not received it looks as if it had not received the connection before it.
    pub(crate) fn drain(&self) {
        if self.wants_drain {
            // A worker that cannot be told is stopped by its signal like any other.
            let _ = self.channel.notify(ToWorker::Drain);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::front::arrival::Arrival;
    use crate::front::links::ChannelPermits;
    use crate::ids::{ServiceId, Slot, WorkerPort};
    use crate::protocol::wire::{Binding, MAX_MESSAGE};
    use crate::sys::seqpacket;

    const PEER: Endpoint = Endpoint::V4 { address: [192, 0, 2, 7], port: 4321 };

    /// A link that has given its worker a connection, and the worker's end.
    fn busy_link() -> (Link, OwnedFd) {
        let (channel, workers) = seqpacket::pair().unwrap();
        let attachment = Attachment {
            worker: WorkerId { slot: Slot(1), launch: 1 },
            service: ServiceId::Port(WorkerPort(3000)),
            binding: Binding::new(PEER),
            options: Vec::new(),
            registration: None,
            channel: channel.into(),
            worker_end: workers.try_clone().unwrap().into(),
            holder: Holder { inode: 0, pid: 0 },
            wants_drain: false,
            relayed: true,
            permit: ChannelPermits::new(1).take().unwrap(),
        };
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let timeouts = Timeouts { slow: second, late: second, timeout: second };
        let mut link = Link::new(attachment, timeouts, Gate::Open, Waker::noop().clone()).unwrap();
        let socket = seqpacket::pair().unwrap().0.into();
        let connection = Connection { socket, peer: PEER, arrival: Arrival::V4, accepted: now };
        link.hand_off(connection, now, &mut Batch::default()).unwrap();
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
    async fn what_was_given_ahead_is_told_from_what_had_its_turn_at_once() {
        let (mut link, workers) = busy_link();
        assert!(!link.was_given_ahead());
        let socket = seqpacket::pair().unwrap().0.into();
        let now = Instant::now();
        let second = Connection { socket, peer: PEER, arrival: Arrival::V4, accepted: now };
        link.hand_off(second, now, &mut Batch::default()).unwrap();
        drop(seqpacket::receive(&workers, &mut [0; MAX_MESSAGE]).unwrap());
        link.ask();
        assert!(matches!(link.next_taken(), Some(LinkEvent::Taken { .. })));
        assert!(link.was_given_ahead());
    }

    #[tokio::test]
    async fn who_was_only_just_given_something_is_about_to_take_it() {
        let (mut link, workers) = busy_link();
        let given = link.last_handed().unwrap();
        for (after, is_about_to) in [(Duration::ZERO, true), (MOMENT / 2, true), (MOMENT, false)] {
            assert_eq!(link.is_about_to_take(given + after), is_about_to, "{after:?}");
        }
        drop(seqpacket::receive(&workers, &mut [0; MAX_MESSAGE]).unwrap());
        link.ask();
        assert!(!link.is_about_to_take(given), "it has");
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
