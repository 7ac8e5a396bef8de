//! One service: its public listeners, its queue, and the channels to the workers that listen on it.
//!
//! It moves connections whenever it is polled, and keeps no clock of its own beyond asking what time it is.

use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use prometheus::{IntCounter, IntGauge};
use tracing::{debug, warn};

use super::ledger::Ledger;
use super::listener::{self, Listener};
use super::private::{Delivery, Private, Undelivered};
use super::queue::Queue;
use crate::ids::{ServiceId, WorkerId};
use crate::metrics::{Metrics, Rejected};
use crate::protocol::native::{Connection, Due, Event, Link, NotGiven};
use crate::protocol::wire::SocketOption;
use crate::scheduler::round_robin::RoundRobin;
use crate::scheduler::window::Window;

/// How many connections move before everything else gets its turn.
const BURST: usize = 64;

/// How many messages of one worker are read before everything else gets its turn.
const EVENTS: usize = 16;

/// How long nothing is accepted or given after the kernel ran out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// How often a lasting shortage is said aloud.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// How long handshakes that had begun when the stop came may take to be completed.
pub(super) const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// A port that workers listen on.
#[derive(Debug)]
pub struct Service {
    id: ServiceId,
    intake: Intake,
    queue: Queue,
    free: RoundRobin<WorkerId>,
    /// The window of a new member.
    window: Window,
    members: Vec<Member>,
    /// How many of them clients are sent to.
    listening: usize,
    /// Who has taken a connection, and when it was given, since the links were last polled.
    taken: Vec<(Instant, WorkerId)>,
    /// Those who are gone, and in whose channels connections still lie: there was no room to take them back.
    gone: Vec<Member>,
    /// When that is tried again.
    recover_at: Option<Instant>,
    paused: Option<Instant>,
    /// When the next shortage may be said aloud.
    complain_from: Option<Instant>,
    metrics: Metrics,
}

/// Where connections come from.
#[derive(Debug)]
enum Intake {
    Open(Vec<Listener>),
    Closing { listeners: Vec<Listener>, until: Instant },
    Closed,
}

/// A channel, with what is counted for its worker.
#[derive(Debug)]
struct Member {
    link: Link,
    window: Window,
    private: Private,
    handed: IntCounter,
    stalled: IntGauge,
}

impl Member {
    /// Whether it may be given a connection ahead, before it has taken those that it was given. One of clusterd's own is
    /// on its way alone, and does not wait until nobody comes any more.
    fn has_room_ahead(&self) -> bool {
        self.link.may_be_given_ahead()
            && self.link.untaken() < self.window.size()
            && self.private.is_empty()
            && !self.private.is_under_way()
    }

    /// A connection has come back from the worker, for this reason. One of clusterd's own is closed: it is for nobody
    /// else.
    fn returned(&mut self, connection: Connection, why: Undelivered) -> Option<Connection> {
        if self.private.end(Err(why)) { None } else { Some(connection) }
    }
}

/// Whether a service could go on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits for a client, a worker or a deadline.
    Waiting,
    /// It stopped to give others a turn.
    More,
}

impl Service {
    /// A service without workers.
    pub fn new(
        id: ServiceId,
        listeners: Vec<Listener>,
        queue: Queue,
        window: Window,
        metrics: Metrics,
    ) -> Self {
        Self {
            id,
            intake: Intake::Open(listeners),
            queue,
            free: RoundRobin::new(),
            window,
            members: Vec::new(),
            listening: 0,
            taken: Vec::new(),
            gone: Vec::new(),
            recover_at: None,
            paused: None,
            complain_from: None,
            metrics,
        }
    }

    /// What it is for.
    pub fn id(&self) -> ServiceId {
        self.id
    }

    /// How many channels have a listening server at their other end to which clients are sent.
    pub fn listening(&self) -> usize {
        self.listening
    }

    fn count_listening(&mut self) {
        self.listening = self.members.iter().filter(|member| member.link.is_listening()).count();
    }

    /// Adds a channel. It gets connections once its server listens.
    pub fn attach(&mut self, link: Link) {
        if link.is_retired() {
            link.drain();
        }
        let slot = link.worker().slot.to_string();
        self.members.push(Member {
            handed: self.metrics.handed.with_label_values(&[&slot]),
            stalled: self.metrics.stalled.with_label_values(&[&slot]),
            window: self.window,
            private: Private::default(),
            link,
        });
    }

    /// Hands a connection of clusterd's own to its worker when that has a turn for it.
    pub fn deliver(&mut self, delivery: Delivery) {
        let links = self.members.iter_mut().filter(|member| member.link.worker() == delivery.worker);
        let listening = links.filter(|member| member.link.has_listened());
        let best = listening
            .min_by_key(|member| (member.link.is_stalled(), !member.link.is_idle(), member.private.len()));
        let refused = match best {
            None => Undelivered::NotListening,
            Some(member) if member.link.is_retired() => Undelivered::Retired,
            Some(member) if member.link.is_stalled() => Undelivered::Stalled,
            Some(member) => return member.private.push(delivery),
        };
        let _ = delivery.reply.send(Err(refused));
    }

    /// The worker is ready: clients may be sent to its channels that were held.
    pub fn ready(&mut self, worker: WorkerId) {
        for member in self.members.iter_mut().filter(|member| member.link.worker() == worker) {
            member.link.open();
            if member.link.is_available() {
                self.free.release(worker);
            }
        }
        self.count_listening();
    }

    /// The worker gets no connection any more: what it has not taken goes to others.
    pub fn retire(&mut self, worker: WorkerId) {
        self.leave_out(worker);
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if member.link.worker() != worker {
                continue;
            }
            member.private.refuse(Undelivered::Retired);
            member.link.retire();
            // The other end of a relayed channel may have offered a connection to the worker by now, and is left to say
            // what became of it.
            if !member.link.is_relayed() {
                self.take_back(index, 0, Undelivered::Retired);
            }
            let link = &self.members[index].link;
            if !link.is_busy() {
                link.drain();
            }
        }
        self.count_listening();
    }

    /// Whether a connection is on its way to this worker.
    pub fn is_giving_to(&self, worker: WorkerId) -> bool {
        self.members.iter().any(|member| member.link.worker() == worker && member.link.is_busy())
    }

    /// Drops the channels that `which` picks, after taking back what is in them. Returns how many connections were
    /// found to have been taken meanwhile.
    pub fn drop_links(&mut self, which: impl Fn(&Link) -> bool, ledger: &mut Ledger) -> u64 {
        let mut taken = 0;
        while let Some(index) = self.members.iter().position(|member| which(&member.link)) {
            taken += self.drop_member(index, ledger);
        }
        taken
    }

    /// Returns how many connections were found to have been taken.
    fn drop_member(&mut self, index: usize, ledger: &mut Ledger) -> u64 {
        let member = self.members.swap_remove(index);
        let worker = member.link.worker();
        if member.link.is_stalled() {
            member.stalled.dec();
            ledger.moves(worker);
        }
        if !self.members.iter().any(|other| other.link.worker() == worker && other.link.is_available()) {
            self.leave_out(worker);
        }
        self.count_listening();
        self.recover(member, ledger)
    }

    /// Takes back what lies in the channel of a member that is gone: later, if there is no room for it now. Returns how
    /// many connections were found to have been taken.
    fn recover(&mut self, mut member: Member, ledger: &mut Ledger) -> u64 {
        let outcome = loop {
            match member.link.recover() {
                Ok(Some(connection)) => {
                    if let Some(connection) = member.returned(connection, Undelivered::Gone) {
                        self.put_back(connection);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let worker = member.link.worker();
        let mut taken = 0;
        while member.link.next_taken().is_some() {
            if !member.private.end(Ok(())) {
                taken += 1;
                member.handed.inc();
                ledger.took(worker, Instant::now());
            }
        }
        match outcome {
            Ok(()) => {}
            Err(error) if is_scarcity(&error) => {
                debug!(%worker, %error, "cannot take back connections yet");
                self.gone.push(member);
                self.recover_at = Some(Instant::now() + PAUSE);
            }
            Err(error) => {
                let lost = member.link.untaken();
                warn!(%worker, lost, %error, "cannot take back connections; they are lost");
            }
        }
        taken
    }

    /// The worker has no turn until it is released again.
    fn leave_out(&mut self, worker: WorkerId) {
        self.free.remove(worker);
        self.taken.retain(|&(_, taken)| taken != worker);
    }

    /// Takes back what the worker has not taken, but for the youngest `leave`; returns how many.
    fn take_back(&mut self, index: usize, leave: usize, why: Undelivered) -> usize {
        let mut back = 0;
        while self.members[index].link.untaken() > leave {
            let link = &mut self.members[index].link;
            match link.take_back() {
                Ok(Some(connection)) => self.came_back(index, connection, why),
                Ok(None) => break,
                Err(error) => {
                    debug!(worker = %link.worker(), %error, "cannot take back a connection yet");
                    break;
                }
            }
            back += 1;
        }
        back
    }

    fn came_back(&mut self, index: usize, connection: Connection, why: Undelivered) {
        if let Some(connection) = self.members[index].returned(connection, why) {
            self.put_back(connection);
        }
    }

    fn put_back(&mut self, connection: Connection) {
        self.metrics.redispatched.inc();
        self.queue.put_back(connection);
    }

    /// Moves everything that can be moved now.
    pub fn poll(&mut self, cx: &mut Context<'_>, ledger: &mut Ledger) -> Progress {
        let mut progress = Progress::Waiting;
        loop {
            if self.poll_links(cx, ledger) == Progress::More {
                progress = Progress::More;
            }
            let moved = self.distribute(cx, ledger);
            if moved == BURST {
                progress = Progress::More;
            }
            if moved == 0 || progress == Progress::More {
                return progress;
            }
        }
    }

    /// Hears what the workers have done.
    fn poll_links(&mut self, cx: &mut Context<'_>, ledger: &mut Ledger) -> Progress {
        let mut progress = Progress::Waiting;
        let mut index = 0;
        let mut left = EVENTS;
        while let Some(member) = self.members.get_mut(index) {
            match member.link.poll(cx) {
                Poll::Ready(event) => {
                    left -= 1;
                    self.hear(index, event, ledger);
                    if left > 0 {
                        continue;
                    }
                    progress = Progress::More;
                }
                // The link is polled again: it has to be watched for the taking.
                Poll::Pending if self.give_private(index) => continue,
                Poll::Pending => {}
            }
            index += 1;
            left = EVENTS;
        }
        self.ask_older(ledger);
        self.release_taken();
        progress
    }

    /// On a busy machine the front may hear of a connection that was taken while it has yet to hear of others that were
    /// given, and taken, before. Their workers are next, so they are asked about.
    fn ask_older(&mut self, ledger: &mut Ledger) {
        while let Some(latest) = self.taken.iter().map(|&(since, _)| since).max() {
            let heard = self.taken.len();
            self.ask_about_given_before(latest, ledger);
            if self.taken.len() == heard {
                return;
            }
        }
    }

    fn ask_about_given_before(&mut self, then: Instant, ledger: &mut Ledger) {
        for index in 0..self.members.len() {
            let link = &mut self.members[index].link;
            // A relay's worker may have declined, and is left to say so.
            if link.is_relayed() {
                continue;
            }
            link.ask_if_older(then);
            while let Some(event) = self.members[index].link.next_taken() {
                self.hear(index, event, ledger);
            }
        }
    }

    /// Hands over a connection of clusterd's own if one waits and the worker has a turn for it; whether it did. For
    /// clients this is as if the worker had been given one of theirs.
    fn give_private(&mut self, index: usize) -> bool {
        let member = &mut self.members[index];
        if member.private.is_empty() || !member.link.is_idle() {
            return false;
        }
        let Some(Delivery { worker, connection, reply, .. }) = member.private.pop() else { return false };
        match member.link.hand_off(connection, Instant::now()) {
            Ok(()) => member.private.begin(reply),
            Err(NotGiven { error, .. }) => {
                let _ = reply.send(Err(Undelivered::HandOff(error.kind())));
                return false;
            }
        }
        if !self.members.iter().any(|other| other.link.worker() == worker && other.link.is_available()) {
            self.leave_out(worker);
        }
        true
    }

    /// Puts those who have taken a connection back into the pool, in the order in which they were given one. Under
    /// load several are heard of at once, and by the order of their links they would lose their turns.
    fn release_taken(&mut self) {
        self.taken.sort_unstable_by_key(|&(since, _)| since);
        for (_, worker) in self.taken.drain(..) {
            self.free.release(worker);
        }
    }

    fn hear(&mut self, index: usize, event: Event, ledger: &mut Ledger) {
        let member = &mut self.members[index];
        let (link, worker) = (&member.link, member.link.worker());
        match event {
            Event::Taken { since } => {
                let now = Instant::now();
                let after = now.saturating_duration_since(since);
                member.window.taken(after);
                if !member.private.end(Ok(())) {
                    member.handed.inc();
                    self.metrics.handoff.observe(after.as_secs_f64());
                    ledger.took(worker, now);
                }
                if link.is_available() {
                    self.taken.push((since, worker));
                } else if link.is_retired() && !link.is_busy() {
                    link.drain();
                }
            }
            Event::Listening => {
                ledger.listens(worker, self.id, link.speaks_for_itself());
                if link.is_available() {
                    self.free.release(worker);
                }
                self.count_listening();
            }
            Event::Moving => {
                member.stalled.dec();
                ledger.moves(worker);
                if link.is_available() {
                    self.free.release(worker);
                }
            }
            Event::Nothing => {}
            Event::Declined(connection) => {
                member.window.close();
                self.came_back(index, connection, Undelivered::Declined);
                self.take_back(index, 0, Undelivered::Declined);
            }
            Event::Paused(connection) => {
                member.window.close();
                self.stalled(index, Instant::now(), ledger);
                self.came_back(index, connection, Undelivered::Stalled);
                self.take_back(index, 0, Undelivered::Stalled);
            }
            Event::SetOption(option) => self.set_option(worker, option),
            Event::Broken(fault) => {
                warn!(%worker, service = %self.id, ?fault, "closed a channel that does not speak the attach protocol");
                self.drop_member(index, ledger);
            }
        }
    }

    fn set_option(&mut self, worker: WorkerId, option: SocketOption) {
        let Intake::Open(listeners) = &mut self.intake else {
            return;
        };
        if !may_be_inherited(&option) {
            return;
        }
        for listener in listeners {
            if let Err(error) = listener.set_option(option) {
                debug!(%worker, service = %self.id, ?option, %error, "cannot set a worker's socket option");
            }
        }
        for connection in self.queue.iter() {
            listener::apply(&option, &connection.socket);
        }
    }

    /// Brings connections and idle workers together; returns how many connections moved.
    fn distribute(&mut self, cx: &mut Context<'_>, ledger: &mut Ledger) -> usize {
        if self.paused.is_some() {
            return 0;
        }
        let mut all_are_busy = false;
        for moved in 0..BURST {
            if !self.queue.is_empty()
                && let Some(index) = self.next_member(&mut all_are_busy, ledger)
                && let Some(connection) = self.queue.pop()
            {
                self.give(index, connection, ledger);
                continue;
            }
            if self.queue.is_full(self.ahead()) {
                return moved;
            }
            match self.poll_accept(cx) {
                Poll::Ready(Ok(connection)) => {
                    self.metrics.accepted.inc();
                    match self.next_member(&mut all_are_busy, ledger) {
                        Some(index) => self.give(index, connection, ledger),
                        None => self.queue.push(connection),
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.pause("cannot accept; clients wait in the kernel's backlog", &error);
                    return moved;
                }
                Poll::Pending => return moved,
            }
        }
        BURST
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        let (Intake::Open(listeners) | Intake::Closing { listeners, .. }) = &mut self.intake else {
            return Poll::Pending;
        };
        for turn in 0..listeners.len() {
            if let ready @ Poll::Ready(_) = listeners[turn].poll_accept(cx) {
                // The next one is asked first next time, so that none keeps the others waiting.
                listeners.rotate_left(turn + 1);
                return ready;
            }
        }
        Poll::Pending
    }

    /// How many connections were given ahead. They count as waiting, for they may come back into the queue.
    fn ahead(&self) -> usize {
        self.members.iter().map(|member| member.link.untaken().saturating_sub(1)).sum()
    }

    fn give(&mut self, index: usize, connection: Connection, ledger: &mut Ledger) {
        let member = &mut self.members[index];
        let worker = member.link.worker();
        let now = Instant::now();
        let waited = now.saturating_duration_since(connection.accepted);
        match member.link.hand_off(connection, now) {
            Ok(()) => {
                self.metrics.queue_wait.observe(waited.as_secs_f64());
                if self.members.iter().any(|other| other.link.worker() == worker && other.link.is_available())
                {
                    self.free.release(worker);
                }
            }
            Err(not_given) => self.keep(index, not_given, ledger),
        }
    }

    /// Who gets the next connection: the next idle worker in turn, or else one that is given it ahead.
    fn next_member(&mut self, all_are_busy: &mut bool, ledger: &mut Ledger) -> Option<usize> {
        self.next_idle().or_else(|| self.next_ahead(all_are_busy, ledger))
    }

    /// The next idle worker in turn, by the one of its channels that was used longest ago.
    fn next_idle(&mut self) -> Option<usize> {
        let worker = self.free.take()?;
        let idle = self.members.iter().enumerate();
        idle.filter(|(_, member)| member.link.worker() == worker && member.link.is_available())
            .min_by_key(|(_, member)| member.link.last_handed())
            .map(|(index, _)| index)
    }

    /// The one to whom the fewest are on their way, and whose window has room. Before anyone is passed over, all are
    /// asked whether they are still busy, for the front may not have heard; not again while all are.
    fn next_ahead(&mut self, all_are_busy: &mut bool, ledger: &mut Ledger) -> Option<usize> {
        let next = self.next_busy(|_| true)?;
        if self.members[next].has_room_ahead() {
            return Some(next);
        }
        if !*all_are_busy {
            self.ask_about_given_before(Instant::now(), ledger);
            self.release_taken();
            if let idle @ Some(_) = self.next_idle() {
                return idle;
            }
            *all_are_busy = true;
        }
        self.next_busy(Member::has_room_ahead)
    }

    /// Of the busy ones that may be given connections ahead, and that `which` picks, the one whose turn it is.
    fn next_busy(&self, which: impl Fn(&Member) -> bool) -> Option<usize> {
        let busy = self.members.iter().enumerate();
        busy.filter(|(_, member)| member.link.may_be_given_ahead() && which(member))
            .min_by_key(|(_, member)| (member.link.untaken(), member.link.last_handed()))
            .map(|(index, _)| index)
    }

    fn keep(&mut self, index: usize, NotGiven { connection, error }: NotGiven, ledger: &mut Ledger) {
        let member = &mut self.members[index];
        let worker = member.link.worker();
        self.queue.put_back(connection);
        match error.kind() {
            // A channel that the system has made small holds no more.
            io::ErrorKind::WouldBlock if member.link.is_busy() => member.window.close(),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => {
                self.drop_member(index, ledger);
            }
            // No memory, or too many descriptors in flight (ETOOMANYREFS, unix(7)): that passes.
            _ => {
                if member.link.is_available() {
                    self.free.release(worker);
                }
                self.pause("cannot hand over a connection; trying again", &error);
            }
        }
    }

    fn pause(&mut self, what: &str, error: &io::Error) {
        let now = Instant::now();
        self.paused = Some(now + PAUSE);
        if self.complain_from.is_none_or(|from| from <= now) {
            self.complain_from = Some(now + COMPLAINTS);
            warn!(service = %self.id, %error, "{what}");
        }
    }

    /// Does what has become due.
    pub fn tick(&mut self, now: Instant, ledger: &mut Ledger) {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
        }
        if self.recover_at.is_some_and(|at| at <= now) {
            self.recover_at = None;
            for member in std::mem::take(&mut self.gone) {
                self.recover(member, ledger);
            }
        }
        while self.queue.pop_expired(now).is_some() {
            self.metrics.rejected.with_label_values(&[Rejected::QueueTimeout.label()]).inc();
        }
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            member.private.expire(now);
            let link = &mut member.link;
            match link.due(now) {
                Some(Due::Slow) => {
                    ledger.slow(link.id(), link.holder());
                    member.window.close();
                    self.take_back(index, 1, Undelivered::Stalled);
                }
                Some(Due::TimedOut) => self.stall(index, now, ledger),
                Some(Due::Rested) if link.is_available() => {
                    let worker = link.worker();
                    self.free.release(worker);
                }
                Some(Due::Rested) | None => {}
            }
        }
        self.close(now);
    }

    /// Closes the listeners when the last handshakes had their time and nobody is left in the backlogs.
    fn close(&mut self, now: Instant) {
        let Intake::Closing { listeners, until } = &mut self.intake else {
            return;
        };
        if *until > now {
            return;
        }
        if listeners.iter().all(Listener::has_empty_backlog) {
            self.intake = Intake::Closed;
        } else {
            *until = now + PAUSE;
        }
    }

    fn stall(&mut self, index: usize, now: Instant, ledger: &mut Ledger) {
        let back = self.take_back(index, 0, Undelivered::Stalled);
        let link = &mut self.members[index].link;
        if back > 0 && link.untaken() == 0 {
            link.stall();
            self.stalled(index, now, ledger);
        }
    }

    /// A worker has left what it was given untaken.
    fn stalled(&mut self, index: usize, now: Instant, ledger: &mut Ledger) {
        let member = &mut self.members[index];
        member.stalled.inc();
        member.private.refuse(Undelivered::Stalled);
        ledger.stalls(member.link.worker(), now);
    }

    /// When [`Service::tick`] is next needed.
    pub fn deadline(&self) -> Option<Instant> {
        let links = self.members.iter().filter_map(|member| member.link.deadline());
        let closing = match &self.intake {
            Intake::Closing { until, .. } => Some(*until),
            Intake::Open(_) | Intake::Closed => None,
        };
        let private = self.members.iter().filter_map(|member| member.private.deadline());
        let due = links.chain(private).chain(self.queue.deadline()).chain(closing);
        due.chain(self.recover_at).chain(self.paused).min()
    }

    /// Lets no new connection begin. Those that clients have already established are still accepted; at an inherited
    /// socket they wait for whoever listens with it next.
    pub fn stop(&mut self, now: Instant) {
        let Intake::Open(mut listeners) = std::mem::replace(&mut self.intake, Intake::Closed) else {
            return;
        };
        listeners.retain(|listener| !listener.is_inherited());
        for listener in &mut listeners {
            if let Err(error) = listener.stop() {
                debug!(service = %self.id, %error, "cannot filter new connections while stopping");
            }
        }
        self.intake = Intake::Closing { listeners, until: now + LAST_HANDSHAKES };
    }

    /// Whether it was stopped and every connection has been taken by a worker.
    pub fn is_done(&self) -> bool {
        matches!(self.intake, Intake::Closed)
            && self.queue.is_empty()
            && self.gone.is_empty()
            && !self.members.iter().any(|member| member.link.is_busy())
    }

    /// How many connections wait for a worker.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.ahead()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let unserved = self.queue.len() as u64;
        self.metrics.rejected.with_label_values(&[Rejected::Shutdown.label()]).inc_by(unserved);
    }
}

/// Whether this passes when descriptors or memory are free again.
fn is_scarcity(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// Whether this is an option that accepted connections inherit from their listener and that does no harm to other
/// workers: a worker may not, for instance, bind the public socket to a device or filter its traffic.
fn may_be_inherited(option: &SocketOption) -> bool {
    match option.level {
        libc::SOL_SOCKET => matches!(option.name, libc::SO_KEEPALIVE | libc::SO_LINGER),
        libc::IPPROTO_TCP => matches!(
            option.name,
            libc::TCP_NODELAY
                | libc::TCP_KEEPIDLE
                | libc::TCP_KEEPINTVL
                | libc::TCP_KEEPCNT
                | libc::TCP_USER_TIMEOUT
                | libc::TCP_DEFER_ACCEPT
                | libc::TCP_LINGER2
        ),
        libc::IPPROTO_IP => option.name == libc::IP_TOS,
        libc::IPPROTO_IPV6 => option.name == libc::IPV6_TCLASS,
        _ => false,
    }
}
