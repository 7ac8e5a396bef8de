//! One service: its intake, and the groups of listeners among which its connections are divided.
//!
//! It moves connections whenever it is polled, and keeps no clock of its own beyond asking what time it is.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use super::arrival::{Arrival, Arrivals};
use super::bound::Bound;
use super::connection::Connection;
use super::crowd;
use super::dispatch::Dispatch;
use super::group::{Around, Group, Parts};
use super::handle::Notice;
use super::intake::Intake;
use super::launches::LaunchTable;
use super::links::{Attachment, Gate};
use super::occupancy::{Occupancy, Occupied};
use super::openness::{GRACE, Openness, Seen};
use super::private::{Delivery, Undelivered};
use super::queue::Queue;
use super::routes::{self, Bindings, Route, Routes};
use super::setup::ServiceLimits;
use super::snapshot::{Legacy, ServiceSnapshot};
use crate::connections::notes::Notes;
use crate::ids::{LinkId, ServiceId, Slot, WorkerId};
use crate::metrics::{Metrics, Rejected};

/// How many connections move before everything else gets its turn.
const BURST: usize = 64;

/// A port that workers listen on.
#[derive(Debug)]
pub(super) struct Service {
    id: ServiceId,
    intake: Intake,
    openness: Openness,
    groups: Vec<Group>,
    routes: Routes,
    /// Whose turn it is where several groups would do.
    turn: usize,
    /// Those who wait until there is a group for them.
    parked: Queue,
    limits: ServiceLimits,
    metrics: Metrics,
    notes: Notes,
}

/// Whether a service could go on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for a client, a worker or a deadline.
    Waiting,
    /// It stopped to give others a turn.
    More,
}

impl Service {
    /// A service without workers.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn new(
        id: ServiceId,
        bound: Vec<Bound>,
        limits: ServiceLimits,
        metrics: Metrics,
        notes: Notes,
    ) -> io::Result<Self> {
        Ok(Self {
            id,
            intake: Intake::new(id, bound)?,
            openness: Openness::default(),
            groups: Vec::new(),
            routes: Routes::default(),
            turn: 0,
            parked: Queue::new(limits.queue_timeout),
            limits,
            metrics,
            notes,
        })
    }

    /// As it is written down, while it is not to stop.
    pub(super) fn snapshot(&mut self) -> ServiceSnapshot {
        ServiceSnapshot {
            id: self.id,
            intake: self.intake.snapshot(),
            openness: self.openness.snapshot(),
            groups: self.groups.iter_mut().map(Group::snapshot).collect(),
            turn: self.turn,
            parked: self.parked.snapshot(),
        }
    }

    /// It takes over what was written down of it.
    ///
    /// # Errors
    /// Those of epoll_ctl(2), and that the snapshot cannot be one.
    pub(super) fn resume(
        &mut self,
        snapshot: ServiceSnapshot,
        occupancy: &Occupancy,
        legacy: &mut Legacy,
    ) -> io::Result<()> {
        let ServiceSnapshot { id, intake, openness, groups, turn, parked } = snapshot;
        self.openness = Openness::restored(&openness);
        self.intake.resume(intake, self.openness.open())?;
        for snapshot in groups {
            let bindings = Bindings { address: snapshot.address, takes: snapshot.takes };
            let mut group = Group::new(bindings, &self.limits, &self.metrics, &self.notes)?;
            group.resume(snapshot, (id, occupancy), &self.metrics, legacy)?;
            self.groups.push(group);
        }
        self.turn = turn;
        for connection in &parked {
            self.parked.put_back(legacy.connection(connection)?);
        }
        self.reroute();
        Ok(())
    }

    /// Of each link whose server has listened, what is told of that.
    pub(super) fn have_listened(&self) -> impl Iterator<Item = Notice> {
        let links = self.groups.iter().flat_map(|group| group.links.each()).map(|member| &member.link);
        links.filter(|link| link.has_listened()).map(|link| Notice::Listening {
            worker: link.worker(),
            service: self.id,
            link: link.id(),
            ready: link.speaks_for_itself(),
        })
    }

    /// The slot of each link's worker that is stalled.
    pub(super) fn stalled(&self) -> impl Iterator<Item = Slot> {
        self.groups.iter().flat_map(|group| group.links.stalled())
    }

    /// A group's parts, and who chooses in it.
    fn split<'a>(&'a mut self, group: usize, launches: &'a mut LaunchTable) -> (Parts<'a>, &'a mut Dispatch) {
        let around = Around {
            service: self.id,
            intake: &mut self.intake,
            parked: &self.parked,
            launches,
            handoff: &self.metrics.handoff,
        };
        self.groups[group].split(around)
    }

    /// What it is for.
    pub(super) fn id(&self) -> ServiceId {
        self.id
    }

    /// How many channels have a listening server at their other end to which clients are sent.
    pub(super) fn listening(&self) -> usize {
        self.groups.iter().map(|group| group.links.listening()).sum()
    }

    /// How many connections wait for a worker.
    pub(super) fn waiting(&self) -> usize {
        self.parked.len() + self.groups.iter().map(Group::waiting).sum::<usize>()
    }

    /// Adds a channel. It gets connections once its server listens.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn attach(
        &mut self,
        attachment: Attachment,
        gate: Gate,
        occupancy: &Occupancy,
    ) -> io::Result<()> {
        let (worker, bindings) = (attachment.worker, Bindings::of(&attachment.binding));
        for &option in &attachment.options {
            self.intake.set_option(worker, bindings.takes, option);
        }
        let known = self.groups.iter().position(|group| group.bindings == bindings);
        let group = match known {
            Some(group) => group,
            None => {
                let mut group = Group::new(bindings, &self.limits, &self.metrics, &self.notes)?;
                if self.intake.is_closing() {
                    group.links.be_eager();
                }
                self.groups.push(group);
                self.groups.len() - 1
            }
        };
        let links = &mut self.groups[group].links;
        links.attach(attachment, gate, &self.metrics)?;
        links.occupied(worker, occupancy.of(worker));
        Ok(())
    }

    /// Whether it has one public address.
    pub(super) fn has_one_address(&self) -> bool {
        self.intake.has_one_address()
    }

    /// Gives up what it serves. Channels are dropped, and connections that nobody has taken closed.
    pub(super) fn give_up(mut self, launches: &mut LaunchTable) -> (ServiceId, Vec<Bound>) {
        let workers: BTreeSet<_> = self.groups.iter().flat_map(|group| group.links.workers()).collect();
        for worker in workers {
            self.forget(worker, launches);
        }
        let intake = std::mem::replace(&mut self.intake, Intake::empty(self.id));
        let (bound, waiting) = intake.into_bound();
        self.metrics.rejected.with_label_values(&[Rejected::Backlog.label()]).inc_by(waiting as u64);
        (self.id, bound)
    }

    /// How a connection has to arrive that a listener of this worker would accept.
    pub(super) fn how_to_arrive(&self, worker: WorkerId) -> Option<Arrival> {
        let listens = |group: &&Group| {
            let mut links = group.links.of_worker(worker).iter().filter_map(|&key| group.links.get(key));
            links.any(|member| member.link.has_listened())
        };
        let takes = self.groups.iter().filter(listens).map(|group| group.bindings.takes);
        let taken = takes.fold(Arrivals::default(), Arrivals::and);
        Arrival::ALL.into_iter().find(|&arrival| taken.has(arrival))
    }

    /// Hands a connection of clusterd's own to its worker when that has a turn for it.
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        let arrival = delivery.connection.arrival;
        let links = self.groups.iter().enumerate().flat_map(|(index, group)| {
            let links = group.links.of_worker(delivery.worker).iter();
            links.filter_map(move |&key| Some((index, group, key, group.links.get(key)?)))
        });
        let best =
            links.filter(|(.., member)| member.link.has_listened()).min_by_key(|(_, group, _, member)| {
                let is_other_kind = !group.bindings.takes.has(arrival);
                (member.link.is_stalled(), is_other_kind, !member.link.is_idle(), member.private.len())
            });
        let refused = match best {
            None => Undelivered::NotListening,
            Some((.., member)) if member.link.is_retired() => Undelivered::Retired,
            Some((.., member)) if member.link.is_stalled() => Undelivered::Stalled,
            Some((index, _, key, _)) => {
                let links = &mut self.groups[index].links;
                links.change(key, |member| member.private.push(delivery));
                links.wake(key);
                return;
            }
        };
        let _ = delivery.reply.send(Err(refused));
    }

    /// The worker is released: clients may be sent to its channels that were held.
    pub(super) fn release(&mut self, worker: WorkerId) {
        self.groups.iter_mut().for_each(|group| group.release(worker));
    }

    /// The worker gets no connection any more: what it has not taken goes to others.
    pub(super) fn retire(&mut self, worker: WorkerId, occupancy: &mut Occupancy) {
        self.groups.iter_mut().for_each(|group| group.retire(worker, occupancy));
    }

    /// So many connections to this worker are open, or on their way.
    pub(super) fn occupied(&mut self, worker: WorkerId, occupied: Occupied) {
        self.groups.iter_mut().for_each(|group| group.links.occupied(worker, occupied));
    }

    /// Drops the channel with this name, if it is one of these.
    pub(super) fn detach(&mut self, link: LinkId, launches: &mut LaunchTable) {
        let found =
            self.groups.iter().enumerate().find_map(|(index, group)| Some((index, group.links.find(link)?)));
        if let Some((group, key)) = found {
            self.split(group, launches).0.drop_link(key);
        }
    }

    /// Drops the channels of a worker that is gone. Returns how many connections were found to have been taken.
    pub(super) fn forget(&mut self, worker: WorkerId, launches: &mut LaunchTable) -> u64 {
        let mut taken = 0;
        for group in 0..self.groups.len() {
            let keys = self.groups[group].links.of_worker(worker).to_vec();
            let (mut parts, _) = self.split(group, launches);
            taken += keys.into_iter().map(|key| parts.drop_link(key)).sum::<u64>();
        }
        taken
    }

    /// The app is stopped, and clients are refused; or it is started again, and they are until a worker listens.
    pub(super) fn app_stopped(&mut self, is_stopped: bool, now: Instant) {
        self.see_listeners();
        self.openness.stopped(is_stopped, now);
        self.intake.open(self.openness.open(), now);
    }

    /// Clients who arrive in these ways wait, though nobody has listened yet.
    pub(super) fn hold(&mut self, arrivals: Arrivals, now: Instant) {
        self.openness.hold(arrivals, now);
        self.intake.open(self.openness.open(), now);
    }

    /// In which ways clients may arrive.
    pub(super) fn open(&self) -> Arrivals {
        self.openness.open()
    }

    /// Whether a connection is on its way to this worker.
    pub(super) fn is_giving_to(&self, worker: WorkerId) -> bool {
        self.groups.iter().any(|group| group.links.is_busy(worker))
    }

    /// Moves everything that can be moved now.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, launches: &mut LaunchTable) -> Progress {
        let mut progress = Progress::Waiting;
        for group in 0..self.groups.len() {
            self.groups[group].hear_edges(cx);
            let (mut parts, dispatch) = self.split(group, launches);
            if parts.poll_links(cx.waker()) == Progress::More {
                progress = Progress::More;
            }
            dispatch.begin(parts.links);
        }
        self.settle();
        let moved = self.distribute(cx, launches);
        if moved > 0 {
            crowd::came(moved, Instant::now());
        }
        self.groups.iter_mut().for_each(|group| group.links.close_handed());
        // By what is given and waits now.
        for group in &mut self.groups {
            if group.hear_edges(cx) {
                progress = Progress::More;
            }
        }
        if moved == BURST || self.is_unsettled() {
            return Progress::More;
        }
        progress
    }

    /// Gives connections to workers; returns how many moved.
    fn distribute(&mut self, cx: &mut Context<'_>, launches: &mut LaunchTable) -> usize {
        for moved in 0..BURST {
            if self.intake.is_paused() || self.must_note_first(cx, &launches.occupancy) {
                return moved;
            }
            self.hear_who_was_given(&launches.occupancy);
            if self.give_one(launches) {
                continue;
            }
            if self.waiting() >= self.limits.queue.get() {
                return moved;
            }
            match self.intake.poll_accept(cx) {
                Poll::Ready(Ok(connection)) => {
                    self.metrics.accepted.inc();
                    match self.group_for(&connection) {
                        Some(group) => {
                            let (mut parts, dispatch) = self.split(group, launches);
                            dispatch.offer(connection, &mut parts);
                        }
                        None => self.parked.push(connection),
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.intake.pause("cannot accept; clients wait in the kernel's backlog", &error);
                    return moved;
                }
                Poll::Pending => return moved,
            }
        }
        BURST
    }

    /// Whether a connection that is given now might not be noted: nobody would ever tell that it has ended, and it would
    /// count for as long as its worker lives.
    fn must_note_first(&self, cx: &Context<'_>, occupancy: &Occupancy) -> bool {
        occupancy.is_counted() && self.notes.poll_room(cx).is_pending()
    }

    /// What one group has given a worker counts in the others too.
    fn hear_who_was_given(&mut self, occupancy: &Occupancy) {
        if self.groups.len() > 1
            && let Some(worker) = occupancy.last_given()
        {
            self.occupied(worker, occupancy.of(worker));
        }
    }

    /// Whether somebody waits, and a worker has as many connections as it may have.
    pub(super) fn waits_for_place(&self, occupancy: &Occupancy) -> bool {
        let mut waiting = self.groups.iter().filter(|group| !group.queue.is_empty());
        waiting.any(|group| group.links.workers().any(|worker| occupancy.of(worker).is_full))
    }

    /// Gives the connection that waits longest in some group; whether there was one, and somebody for it.
    fn give_one(&mut self, launches: &mut LaunchTable) -> bool {
        (0..self.groups.len()).any(|group| {
            let (mut parts, dispatch) = self.split(group, launches);
            dispatch.give_next(&mut parts)
        })
    }

    /// The group that the connection is for.
    fn group_for(&mut self, connection: &Connection) -> Option<usize> {
        match self.routes.of(connection.arrival) {
            Route::Nowhere => None,
            Route::To(group) => Some(*group),
            Route::ByAddress(takers) => {
                let local = rustix::net::getsockname(&connection.socket).ok();
                let local = local.and_then(|local| SocketAddr::try_from(local).ok());
                self.turn = self.turn.wrapping_add(1);
                routes::by_address(takers, local.map(|local| local.ip()), self.turn)
            }
        }
    }

    /// Whether a group has begun or ceased to serve since this was last looked at, or got a connection back after that.
    fn is_unsettled(&self) -> bool {
        self.groups.iter().any(|group| {
            let is_left = !group.is_served && !group.queue.is_empty();
            group.is_served != group.serves() || is_left || group.is_over()
        })
    }

    /// Lets what follows from how listeners stand follow: which public sockets listen, and where connections go.
    fn settle(&mut self) {
        self.see_listeners();
        if self.is_unsettled() {
            self.reroute();
        }
    }

    fn see_listeners(&mut self) {
        let seen = self.groups.iter().map(Group::seen).fold(Seen::default(), Seen::and);
        if self.openness.is_news(seen) {
            let now = Instant::now();
            self.openness.see(seen, now);
            self.intake.open(self.openness.open(), now);
        }
    }

    /// Those who wait for a group that does not serve any more wait for another, or for it to serve again.
    fn reroute(&mut self) {
        let mut waiting = std::mem::replace(&mut self.parked, Queue::new(self.limits.queue_timeout));
        for group in &mut self.groups {
            group.is_served = group.serves();
            if !group.is_served {
                waiting.append(&mut group.queue);
            }
        }
        self.groups.retain(|group| !group.is_over());
        let serving = self.groups.iter().enumerate().filter(|(_, group)| group.is_served);
        self.routes = Routes::to(serving.map(|(index, group)| (group.bindings, index)));
        while let Some(connection) = waiting.pop() {
            match self.group_for(&connection) {
                Some(group) => self.groups[group].queue.put_back(connection),
                None => self.parked.put_back(connection),
            }
        }
    }

    /// Does what has become due.
    pub(super) fn tick(&mut self, now: Instant, launches: &mut LaunchTable) {
        self.intake.tick(now);
        self.openness.tick(now);
        self.intake.open(self.openness.open(), now);
        let expired = self.expire(now);
        self.metrics.rejected.with_label_values(&[Rejected::QueueTimeout.label()]).inc_by(expired);
        for index in 0..self.groups.len() {
            let group = &mut self.groups[index];
            group.reclaim.tick(now, &mut group.queue, launches);
            for (key, due) in self.groups[index].links.due(now) {
                self.split(index, launches).0.on_due(key, due, now);
            }
        }
    }

    /// Closes the connections that have waited too long; how many there were.
    fn expire(&mut self, now: Instant) -> u64 {
        let mut expired = 0;
        for queue in self.groups.iter_mut().map(|group| &mut group.queue).chain([&mut self.parked]) {
            while queue.pop_expired(now).is_some() {
                expired += 1;
            }
        }
        while self.unwanted_from().is_some_and(|from| from <= now) && self.parked.pop().is_some() {
            expired += 1;
        }
        expired
    }

    /// When the connection that has waited longest for a group will have done so in vain: workers serve others.
    fn unwanted_from(&self) -> Option<Instant> {
        let any_serves = self.groups.iter().any(Group::serves);
        self.parked.oldest().filter(|_| any_serves).map(|oldest| oldest + GRACE)
    }

    /// When [`Service::tick`] is next needed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.groups.iter().filter_map(Group::deadline).chain(self.parked.deadline());
        due.chain(self.unwanted_from()).chain(self.intake.deadline()).chain(self.openness.deadline()).min()
    }

    /// Lets no new connection begin. Those that clients have already established are still accepted; at an inherited
    /// socket they wait for whoever listens with it next.
    pub(super) fn stop(&mut self, now: Instant) {
        // Who stops waits for what is on its way.
        self.groups.iter_mut().for_each(|group| group.links.be_eager());
        self.intake.stop(now);
    }

    /// Whether it was stopped and every connection has been taken by a worker.
    pub(super) fn is_done(&self) -> bool {
        self.intake.is_closed() && self.parked.is_empty() && self.groups.iter().all(Group::is_done)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let unserved = self.parked.len() + self.groups.iter().map(|group| group.queue.len()).sum::<usize>();
        self.metrics.rejected.with_label_values(&[Rejected::Shutdown.label()]).inc_by(unserved as u64);
    }
}
