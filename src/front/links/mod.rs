//! The channels to workers' listeners that belong to one group, and what they come to.
//!
//! It chooses no worker. Every change of a link goes through [`Links::change`], so that nothing which follows from how
//! links stand, least of all who is available, is kept in step by hand.

mod attachment;
mod channel;
mod in_flight;
mod link;
mod member;
mod ready_set;
mod slab;
mod state;
mod tally;

pub(in crate::front) mod snapshot;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use tracing::warn;

pub(crate) use self::attachment::{Attachment, ChannelPermit, ChannelPermits, Holder};
pub(crate) use self::link::{LinkEvent, NotGiven};
pub(crate) use self::member::Member;
pub(crate) use self::state::{Due, Gate, Timeouts};

use self::link::Link;
use self::ready_set::ReadySet;
use self::slab::Slab;
use self::snapshot::LinkSnapshot;
use self::tally::{Ahead, Changes, Standing, Tally};
use super::connection::Connection;
use super::occupancy::Occupied;
use super::private::Private;
use super::snapshot::Legacy;
use crate::ids::{LinkId, ServiceId, Slot, WorkerId};
use crate::metrics::Metrics;
use crate::policy::window::Window;
use crate::policy::{Balancer, Choice, Seat};
use crate::sys::closer::Batch;
use crate::sys::edges::Edges;

/// How often the time of a hand-off is measured where nobody waits: to hear of its end at once takes as long as the rest of it.
const SAMPLES: Duration = Duration::from_millis(50);

/// How long until it is tried again to watch the edges.
const WATCH_AGAIN: Duration = Duration::from_millis(50);

/// Where a link is kept, as long as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkKey(usize);

/// The links of one group.
#[derive(Debug)]
pub(crate) struct Links {
    members: Slab<Member>,
    seats: Slab<Vec<LinkKey>>,
    workers: BTreeMap<WorkerId, Seat>,
    tally: Tally,
    changes: Changes,
    ready: Arc<ReadySet>,
    /// Room for the keys of those that were woken.
    woken: Vec<LinkKey>,
    /// The keys of those whose workers have received something.
    heard: Vec<LinkKey>,
    /// The window of a new link.
    window: Window,
    timeouts: Timeouts,
    /// The primary's copies of connections that were handed over.
    handed: Batch,
    edges: Edges,
    /// Whether everything that a worker does is to be heard of at once.
    is_eager: bool,
    /// Since when it is.
    heard_since: Option<Instant>,
    /// When it was last decided whether it is.
    looked: Instant,
    /// When it is tried again to watch the edges, if they are still to be.
    watch_again: Option<Instant>,
    /// They could not be watched when that was last tried.
    is_refused: bool,
    /// When a hand-off was last measured.
    sampled: Option<Instant>,
}

impl Links {
    /// None yet.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub(crate) fn new(choice: Choice, window: Window, timeouts: Timeouts) -> io::Result<Self> {
        Ok(Self {
            members: Slab::new(),
            seats: Slab::new(),
            workers: BTreeMap::new(),
            tally: Tally::new(choice),
            changes: Changes::default(),
            ready: Arc::default(),
            woken: Vec::new(),
            heard: Vec::new(),
            window,
            timeouts,
            handed: Batch::default(),
            edges: Edges::new()?,
            is_eager: !choice.knows_idle_only(),
            heard_since: None,
            looked: Instant::now(),
            watch_again: None,
            is_refused: false,
            sampled: None,
        })
    }

    /// Adds a channel. It is available once its server listens.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn attach(&mut self, attachment: Attachment, gate: Gate, metrics: &Metrics) -> io::Result<()> {
        let key = LinkKey(self.members.next_key());
        let mark = self.ready.mark(key);
        let link = Link::new(attachment, self.timeouts, gate, Waker::from(Arc::clone(&mark)))?;
        self.edges.add(link.signals(), key.0 as u64)?;
        if link.is_retired() {
            link.drain();
        }
        let worker = link.worker();
        let slot = worker.slot.to_string();
        let seats = &mut self.seats;
        let changes = &mut self.changes;
        let seat = *self.workers.entry(worker).or_insert_with(|| {
            let seat = Seat(seats.insert(Vec::new()));
            changes.seated(seat, worker.slot);
            seat
        });
        let member = Member {
            handed: metrics.handed.with_label_values(&[&slot]),
            late: metrics.late.with_label_values(&[&slot]),
            stalled: metrics.stalled.with_label_values(&[&slot]),
            window: self.window,
            private: Private::default(),
            link,
            seat,
            is_sample: false,
            is_worker_full: false,
            mark,
            settled: Standing::default(),
        };
        // It is looked at once, and from then on when it is woken.
        member.mark.wake_by_ref();
        self.members.insert(member);
        if let Some(links) = self.seats.get_mut(seat.0) {
            links.push(key);
        }
        self.settle(key);
        Ok(())
    }

    /// All links as they are written down: those of each worker together, and workers in this order.
    pub(in crate::front) fn snapshot(&self, order: &[Seat]) -> Vec<LinkSnapshot> {
        let others = self.seats.keys().map(Seat).filter(|seat| !order.contains(seat));
        let seats = order.iter().copied().chain(others);
        let links = seats.flat_map(|seat| self.of_seat(seat)).filter_map(|&key| self.get(key));
        links.map(Member::snapshot).collect()
    }

    /// Adds a channel that another image has written down, as it stood, of a server that listens on this. Nothing is told.
    ///
    /// # Errors
    /// Those of epoll_ctl(2), and that the snapshot cannot be one.
    pub(in crate::front) fn resume(
        &mut self,
        snapshot: LinkSnapshot,
        (service, address): (ServiceId, IpAddr),
        metrics: &Metrics,
        legacy: &mut Legacy,
    ) -> io::Result<LinkKey> {
        let key = LinkKey(self.members.next_key());
        self.attach(snapshot.attachment(service, address, legacy)?, Gate::Held, metrics)?;
        self.change(key, |member| member.resume(snapshot)).transpose()?;
        Ok(key)
    }

    /// Those who are available are told to be so in the order in which their channels were added.
    pub(in crate::front) fn keep_order(&mut self) {
        self.changes.keep_order();
    }

    /// Each link with its worker's slot that is stalled.
    pub(in crate::front) fn stalled(&self) -> impl Iterator<Item = Slot> {
        self.each().filter(|member| member.link.is_stalled()).map(|member| member.link.worker().slot)
    }

    /// All links.
    pub(in crate::front) fn each(&self) -> impl Iterator<Item = &Member> {
        self.members.keys().filter_map(|key| self.members.get(key))
    }

    /// Takes a link out, with all that is in it.
    pub(crate) fn remove(&mut self, key: LinkKey) -> Option<Member> {
        let member = self.members.remove(key.0)?;
        self.edges.remove(member.link.signals());
        let seat = member.seat;
        self.account(seat, key, &member.settled, &Standing::default());
        let links = self.seats.get_mut(seat.0)?;
        links.retain(|&link| link != key);
        if links.is_empty() {
            self.seats.remove(seat.0);
            self.workers.remove(&member.link.worker());
        }
        Some(member)
    }

    /// A link, to look at.
    pub(crate) fn get(&self, key: LinkKey) -> Option<&Member> {
        self.members.get(key.0)
    }

    /// Changes a link. There is no other way to do so.
    pub(crate) fn change<T>(&mut self, key: LinkKey, act: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let member = self.members.get_mut(key.0)?;
        let result = act(member);
        self.settle(key);
        Some(result)
    }

    /// Accounts for what has become of a link since this was last done.
    fn settle(&mut self, key: LinkKey) {
        let Some(member) = self.members.get_mut(key.0) else { return };
        let after = member.standing();
        if member.settled != after {
            let before = std::mem::replace(&mut member.settled, after);
            let seat = member.seat;
            self.account(seat, key, &before, &after);
        }
    }

    fn account(&mut self, seat: Seat, key: LinkKey, before: &Standing, after: &Standing) {
        if let Some(availability) = self.tally.step(seat, key, before, after) {
            self.changes.stands(seat, availability, after.last_handed);
        }
    }

    /// So many connections to the worker are open, or on their way. With as many as it may have it gets no other.
    pub(crate) fn occupied(&mut self, worker: WorkerId, Occupied { open, is_full }: Occupied) {
        let Some(&seat) = self.workers.get(&worker) else { return };
        self.changes.open(seat, open);
        for index in 0..self.of_seat(seat).len() {
            let key = self.of_seat(seat)[index];
            if self.get(key).is_some_and(|member| member.is_worker_full != is_full) {
                self.change(key, |member| member.is_worker_full = is_full);
            }
        }
    }

    /// Tells the balancer what workers can be given since it was last told.
    pub(crate) fn tell(&mut self, balancer: &mut dyn Balancer) {
        self.changes.tell(balancer);
    }

    /// Gives a worker a connection; the primary's copy is closed with [`Links::close_handed`].
    ///
    /// # Errors
    /// The connection and what sendmsg(2) said; the link is as it was.
    pub(crate) fn hand_off(
        &mut self,
        key: LinkKey,
        connection: Connection,
        now: Instant,
    ) -> Result<(), NotGiven> {
        let Some(member) = self.members.get_mut(key.0) else {
            return Err(NotGiven { connection, error: io::ErrorKind::NotConnected.into() });
        };
        let was_busy = member.link.is_busy();
        let handed = member.link.hand_off(connection, now, &mut self.handed);
        let is_due = self.sampled.is_none_or(|last| now.saturating_duration_since(last) >= SAMPLES);
        if handed.is_ok() && !was_busy && is_due {
            member.is_sample = true;
            self.sampled = Some(now);
        }
        self.settle(key);
        handed
    }

    /// Has the primary's copies closed of what was handed over since this was last done.
    pub(crate) fn close_handed(&mut self) {
        self.handed.close();
    }

    /// Has everything that a worker does heard of at once from now on.
    pub(crate) fn be_eager(&mut self) {
        self.is_eager = true;
    }

    /// Hears of workers that have received something, if that is to be heard of at once: because somebody `waits` for it, or
    /// for what is on its way. Else it is asked for when a connection is to be given, and nobody is woken. Returns whether some
    /// link is to be looked at.
    pub(crate) fn hear_edges(&mut self, waits: bool, cx: &mut Context<'_>) -> bool {
        // What was signalled since then is told at once.
        let looked = std::mem::replace(&mut self.looked, Instant::now());
        let watch = waits || self.is_eager || self.tally.is_any_urgent();
        if watch != self.edges.are_watched() {
            self.watch_edges(watch);
            self.heard_since = self.edges.are_watched().then_some(looked);
            // What was signalled before wakes nobody any more if it is told now.
            self.ask_edges();
        } else {
            self.watch_again = None;
        }
        let (members, heard) = (&mut self.members, &mut self.heard);
        let told = self.edges.poll(cx, |key| hear(members, heard, key)).is_ready();
        told || (watch && !self.heard.is_empty())
    }

    /// Where that cannot be, for want of memory or by a limit of epoll(7), all are asked every 50 ms until it can.
    fn watch_edges(&mut self, watch: bool) {
        let refused = self.edges.watch(watch).err();
        if let Some(error) = &refused
            && !self.is_refused
        {
            warn!(%error, "cannot watch whether workers take their connections; asking them now and then");
        }
        self.is_refused = refused.is_some();
        self.watch_again = self.is_refused.then(|| Instant::now() + WATCH_AGAIN);
    }

    /// Those whose workers were heard to have received something, and that were not looked at since.
    pub(crate) fn heard(&mut self) -> Vec<LinkKey> {
        std::mem::take(&mut self.heard)
    }

    /// Whether it is heard of at once what workers do.
    pub(crate) fn hears_at_once(&self) -> bool {
        self.edges.are_watched()
    }

    /// Asks which workers have received something since that was last heard of.
    pub(crate) fn ask_edges(&mut self) {
        let (members, woken) = (&mut self.members, &mut self.heard);
        self.edges.ask(|key| hear(members, woken, key));
    }

    /// Whether it was heard of at once what became of what was given then.
    pub(crate) fn is_exact(&self, given: Instant) -> bool {
        self.heard_since.is_some_and(|since| since <= given)
    }

    /// Those that were woken since this was last asked, in that order; `task` is woken when there are more. To be given
    /// back with [`Links::looked_at_all`].
    pub(crate) fn woken(&mut self, task: &Waker) -> Vec<LinkKey> {
        let mut keys = std::mem::take(&mut self.woken);
        keys.append(&mut self.heard);
        self.ready.drain(&mut keys, task);
        keys
    }

    /// All that were woken were looked at.
    pub(crate) fn looked_at_all(&mut self, mut woken: Vec<LinkKey>) {
        woken.clear();
        self.woken = woken;
    }

    /// The link is looked at, and woken again by what happens from now on.
    pub(crate) fn looked_at(&self, key: LinkKey) {
        if let Some(member) = self.members.get(key.0) {
            member.mark.clear();
        }
    }

    /// Has the link looked at.
    pub(crate) fn wake(&self, key: LinkKey) {
        if let Some(member) = self.members.get(key.0) {
            member.mark.wake_by_ref();
        }
    }

    /// Whose links these are.
    pub(crate) fn workers(&self) -> impl Iterator<Item = WorkerId> {
        self.workers.keys().copied()
    }

    /// The links of a worker.
    pub(crate) fn of_worker(&self, worker: WorkerId) -> &[LinkKey] {
        self.workers.get(&worker).map_or(&[], |&seat| self.of_seat(seat))
    }

    pub(crate) fn of_seat(&self, seat: Seat) -> &[LinkKey] {
        self.seats.get(seat.0).map_or(&[], Vec::as_slice)
    }

    /// The link with this name.
    pub(crate) fn find(&self, id: LinkId) -> Option<LinkKey> {
        let named = |key: &usize| self.members.get(*key).is_some_and(|member| member.link.id() == id);
        self.members.keys().find(named).map(LinkKey)
    }

    /// Of a worker's links that can be given a connection, an available one, and of several the one that was used longest
    /// ago; or else the one to which the fewest are on their way.
    pub(crate) fn able(&self, seat: Seat) -> Option<LinkKey> {
        let links = self.of_seat(seat).iter().filter_map(|&key| Some((self.get(key)?.settled, key)));
        let able = links.filter(|(standing, _)| standing.is_available || standing.ahead == Ahead::Room);
        let best =
            able.min_by_key(|(standing, _)| (!standing.is_available, standing.untaken, standing.last_handed));
        best.map(|(_, key)| key)
    }

    /// The busy link that is next to be given a connection ahead.
    pub(crate) fn next_ahead(&self) -> Option<LinkKey> {
        self.tally.next_ahead()
    }

    /// The busy link that is next to be given a connection ahead, if it is its turn before that of this idle one, and it is
    /// about to take what it was given.
    pub(crate) fn in_turn_before(&self, idle: LinkKey, now: Instant) -> Option<LinkKey> {
        let next = self.tally.next_ahead()?;
        let (busy, idle) = (&self.get(next)?.link, &self.get(idle)?.link);
        (busy.last_handed() < idle.last_handed() && busy.is_about_to_take(now)).then_some(next)
    }

    /// The busy link that is first to be asked whether it still is.
    pub(crate) fn longest_busy(&self) -> Option<LinkKey> {
        self.tally.longest_busy()
    }

    /// The busy links that are passed over if that is done, in turn.
    pub(crate) fn passed_over(&self) -> impl Iterator<Item = LinkKey> {
        self.tally.passed_over()
    }

    /// Of the links whose workers are late, the one with the oldest connection, and when that was accepted.
    pub(crate) fn latest(&self) -> Option<(Instant, LinkKey)> {
        self.tally.latest()
    }

    /// How many connections were given ahead.
    pub(crate) fn ahead(&self) -> usize {
        self.tally.ahead()
    }

    /// How many links have a listening server at their other end to which clients are sent.
    pub(crate) fn listening(&self) -> usize {
        self.tally.listening()
    }

    /// How many links have a listening server at their other end whose worker is not to end.
    pub(crate) fn up(&self) -> usize {
        self.tally.up()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Whether a connection is on its way to anybody.
    pub(crate) fn is_any_busy(&self) -> bool {
        self.tally.is_any_busy()
    }

    /// Whether a connection is on its way to this worker.
    pub(crate) fn is_busy(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|&seat| self.tally.is_busy(seat))
    }

    /// Nothing is due before this.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.tally.due().into_iter().chain(self.watch_again).min()
    }

    /// What is due at `now`; nothing before [`Links::deadline`]. All links are looked at, and those that have something
    /// due are woken.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(LinkKey, Due)> {
        let mut found = Vec::new();
        if self.tally.due().is_none_or(|due| due > now) {
            return found;
        }
        let keys: Vec<_> = self.members.keys().map(LinkKey).collect();
        let asked = self.ask_busy(&keys, now);
        self.tally.forget_due();
        for (key, (is_due, has_taken)) in keys.into_iter().zip(asked) {
            if is_due || has_taken {
                self.wake(key);
                self.change(key, |member| member.private.expire(now));
            }
            if has_taken {
                continue;
            }
            if is_due {
                let due = self.change(key, |member| member.link.due(now)).flatten();
                found.extend(due.map(|due| (key, due)));
            }
            let deadline = self.get(key).and_then(|member| member.standing().deadline);
            // Reading is tried again by whoever looks at the link next.
            self.tally.due_by(deadline.filter(|&deadline| deadline > now));
        }
        found
    }

    /// Whether something of each of these is due, and whether it was found to have taken what it was given, which nobody may
    /// have heard of. All that are busy are asked together: where many workers are given one now and then, the time of each
    /// is soon over.
    fn ask_busy(&mut self, keys: &[LinkKey], now: Instant) -> Vec<(bool, bool)> {
        let hears_at_once = self.hears_at_once();
        let mut ask = |&key: &LinkKey| {
            let Some(member) = self.get(key) else { return (false, false) };
            let is_due = member.standing().deadline.is_some_and(|deadline| deadline <= now);
            let is_asked = member.link.is_busy() && (is_due || !hears_at_once);
            (is_due, is_asked && self.change(key, Member::has_taken) == Some(true))
        };
        keys.iter().map(&mut ask).collect()
    }
}

fn hear(members: &mut Slab<Member>, heard: &mut Vec<LinkKey>, key: u64) {
    let key = LinkKey(usize::try_from(key).unwrap_or(usize::MAX));
    if let Some(member) = members.get_mut(key.0) {
        member.link.moved();
        heard.push(key);
    }
}
