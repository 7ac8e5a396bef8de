//! A group of listening sockets on one address, one for each server, in the order in which the kernel keeps them.
//!
//! It knows no other group. Every change of what the kernel keeps goes through here, and the program that steers
//! connections follows in the same step: the kernel appends a socket that begins to listen, and puts the last one into the
//! place of one that ceases to.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::member::{Member, Rank, Server};
use super::program::By;
use super::snapshot::GroupSnapshot;
use super::steered::{Steered, Told};
use super::waits::{Change, Look, Waits};
use super::wakeups::Wakeups;
use super::{Given, MemberId};
use crate::front::arrival::Arrivals;
use crate::front::bound::{BoundAddress, ListeningSocket};
use crate::front::launches::LaunchTable;
use crate::front::links::Gate;
use crate::front::reclaim::is_scarcity;
use crate::front::snapshot::Legacy;
use crate::ids::{LinkId, ServiceId, Slot, WorkerId};
use crate::metrics::{Metrics, Rejected};
use crate::sys::reuseport::{self, ListenerStatus};

/// How long what a worker has left in its backlog waits for the next worker, while others take.
const INHERITANCE: Duration = Duration::from_secs(10);

/// How long what waits at a listener waits for another that a worker opens in its place, while the worker listens with others:
/// it has closed one of several, and without clusterd whoever waits there would be reset at once.
const REPLACEMENT: Duration = Duration::from_millis(100);

/// The sockets for workers that take the same.
#[derive(Debug)]
pub(super) struct Group {
    /// Whom it is for; `None` if it is for all who ask, because it was inherited, or bound for one query.
    takes: Option<Arrivals>,
    /// Those that listen, as the kernel keeps them.
    members: Vec<Member>,
    /// Those that do not yet.
    bound: Vec<Member>,
    /// One socket is for all: there can be no other, or nobody can steer.
    is_shared: bool,
    told: Told,
    waits: Waits,
}

/// What a group needs to know of all else.
#[derive(Debug)]
pub(super) struct Around<'a> {
    /// For what it is.
    pub(super) service: ServiceId,
    /// What keeps the address.
    pub(super) reserved: Option<&'a BoundAddress>,
    /// The service is to stop.
    pub(super) is_ending: bool,
    /// Who hears of the first connection.
    pub(super) wakeups: &'a Wakeups,
    /// Where it counts.
    pub(super) metrics: &'a Metrics,
    /// The time.
    pub(super) now: Instant,
}

impl Group {
    /// None yet for those who take these.
    pub(super) fn new(takes: Arrivals, timeout: Duration, by: By) -> Self {
        Self {
            takes: Some(takes),
            members: Vec::new(),
            bound: Vec::new(),
            is_shared: false,
            told: Told::nothing(by),
            waits: Waits::new(timeout),
        }
    }

    /// Begins with a socket that listens already, for all who ask.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn with(
        (id, socket): (MemberId, ListeningSocket),
        wakeups: &Wakeups,
        timeout: Duration,
        by: By,
    ) -> io::Result<Self> {
        wakeups.add(&socket, id)?;
        let members = vec![Member::new(id, socket)];
        Ok(Self { takes: None, members, ..Self::new(Arrivals::default(), timeout, by) })
    }

    /// As it is written down.
    pub(super) fn snapshot(&self) -> GroupSnapshot {
        let written = |members: &[Member]| members.iter().map(Member::snapshot).collect();
        GroupSnapshot {
            takes: self.takes,
            members: written(&self.members),
            bound: written(&self.bound),
            is_shared: self.is_shared,
            waits: self.waits.snapshot(),
        }
    }

    /// As it was written down. The kernel may hear of connections that wait already.
    ///
    /// # Errors
    /// Those of epoll_ctl(2), and that the snapshot cannot be one.
    pub(super) fn restored(
        snapshot: GroupSnapshot,
        wakeups: &Wakeups,
        (timeout, by): (Duration, By),
        legacy: &mut Legacy,
    ) -> io::Result<Self> {
        let GroupSnapshot { takes, members, bound, is_shared, waits } = snapshot;
        let mut all = |members: Vec<_>| {
            members.into_iter().map(|member| Member::restored(member, legacy)).collect::<io::Result<Vec<_>>>()
        };
        let (members, bound) = (all(members)?, all(bound)?);
        members.iter().try_for_each(|member| wakeups.add(&member.socket, member.id))?;
        let (told, waits) = (Told::nothing(by), Waits::restored(timeout, waits));
        let mut group = Self { takes, members, bound, is_shared, told, waits };
        group.steer_anew();
        Ok(group)
    }

    /// Those who have its sockets.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.members.iter().chain(&self.bound).flat_map(|member| &member.servers)
    }

    /// The slot of each server's worker that is stalled.
    pub(super) fn stalled(&self) -> impl Iterator<Item = Slot> {
        let stalled = self.members.iter().filter(|member| self.waits.is_stalled(member.id));
        stalled.flat_map(|member| &member.servers).map(|server| server.worker.slot)
    }

    /// Whether it is for those who take these.
    pub(super) fn is_for(&self, takes: Arrivals) -> bool {
        self.takes.is_none_or(|known| known == takes)
    }

    /// Gives a server a socket: what another has left, or a new one.
    ///
    /// # Errors
    /// Those of socket(2), bind(2), listen(2), fcntl(2) and epoll_ctl(2).
    pub(super) fn share(
        &mut self,
        server: Server,
        given: Given,
        id: MemberId,
        around: &Around<'_>,
    ) -> io::Result<OwnedFd> {
        let slot = server.worker.slot;
        if let Some(member) = self.heirloom(slot) {
            return member.join(server);
        }
        let made = match self.members.first_mut() {
            Some(one) if self.is_shared => return one.join(server),
            _ => self.make(given, id, around),
        };
        match (made, self.members.first_mut()) {
            (Ok(()), _) => {
                let made = self.members.iter_mut().chain(&mut self.bound).find(|member| member.id == id);
                made.ok_or(io::ErrorKind::NotFound)?.join(server)
            }
            (Err(error), Some(one)) if !is_scarcity(&error) => {
                let copy = one.join(server)?;
                self.is_for_all(&error, around);
                Ok(copy)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// What another server has left, if possible of the same worker.
    fn heirloom(&mut self, slot: Slot) -> Option<&mut Member> {
        let left = self.members.iter_mut().filter(|member| member.servers.is_empty());
        left.min_by_key(|member| member.left.map(|left| (left.worker.slot != slot, left.since)))
    }

    fn make(&mut self, given: Given, id: MemberId, around: &Around<'_>) -> io::Result<()> {
        let socket = match (around.reserved, self.takes, self.members.first()) {
            (Some(reserved), Some(takes), _) => reserved.member(takes)?,
            (_, _, Some(member)) => member.socket.another()?,
            (..) => return Err(io::ErrorKind::NotFound.into()),
        };
        let member = Member::new(id, socket);
        match given {
            Given::Listening => self.begin(member, around),
            Given::Bound => {
                self.bound.push(member);
                Ok(())
            }
        }
    }

    /// Has a socket listen, as the last of all.
    fn begin(&mut self, member: Member, around: &Around<'_>) -> io::Result<()> {
        if around.is_ending {
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        match around.reserved {
            Some(reserved) => reserved.listen(&member.socket)?,
            None => member.socket.listen()?,
        }
        let id = member.id;
        let watched = around.wakeups.add(&member.socket, id);
        self.members.push(member);
        match watched.and_then(|()| self.steer()) {
            Err(error) if self.members.len() == 1 => self.is_for_all(&error, around),
            Err(error) => {
                self.cease(self.members.len() - 1, around);
                return Err(error);
            }
            Ok(()) => {}
        }
        Ok(())
    }

    fn is_for_all(&mut self, error: &io::Error, around: &Around<'_>) {
        if !std::mem::replace(&mut self.is_shared, true) {
            let service = around.service;
            info!(%service, %error, "workers share one listening socket: each cannot have its own");
        }
    }

    /// A server listens: its socket does so from now on, and connections are steered to it. `None` if it is not one of
    /// these, and otherwise whose it is, if it did not listen before.
    pub(super) fn listens(
        &mut self,
        link: LinkId,
        around: &Around<'_>,
    ) -> Option<io::Result<Option<WorkerId>>> {
        if let Some(index) = self.bound.iter_mut().position(|member| member.server(link).is_some()) {
            let member = self.bound.remove(index);
            if let Err(error) = self.begin(member, around) {
                return Some(Err(error));
            }
        }
        let member = self.members.iter_mut().find_map(|member| Some((member.server(link)?.listens, member)));
        let (has_listened, member) = member?;
        member.restore_backlog();
        member.left = None;
        let server = member.server(link)?;
        server.listens = true;
        let worker = server.worker;
        self.steer_anew();
        Some(Ok((!has_listened).then_some(worker)))
    }

    /// The worker's servers stand so from now on.
    pub(super) fn set_gate(&mut self, worker: WorkerId, from: impl Fn(Gate) -> bool, to: Gate) {
        for server in self.members.iter_mut().chain(&mut self.bound).flat_map(|member| &mut member.servers) {
            if server.worker == worker && from(server.gate) {
                server.gate = to;
            }
        }
        self.steer_anew();
    }

    /// The servers that `which` picks are gone. What waits in their backlogs is for the next.
    pub(super) fn drop_servers(
        &mut self,
        which: impl Fn(LinkId, WorkerId) -> bool,
        launches: &mut LaunchTable,
        around: &Around<'_>,
    ) {
        for member in self.members.iter_mut().chain(&mut self.bound) {
            let gone = member.leave(&which, around.now);
            if !gone.is_empty() && member.servers.is_empty() && self.waits.forget(member.id) {
                gone.iter().for_each(|server| moves(server, launches, around.metrics));
            }
        }
        self.bound.retain(|member| !member.servers.is_empty());
        self.steer_anew();
    }

    /// Lets no new connection begin at those that have no server, or at all.
    pub(super) fn close(&mut self, only_left: bool, now: Instant) {
        for member in &mut self.members {
            if !only_left || member.servers.is_empty() {
                member.close(now);
            }
        }
        self.steer_anew();
    }

    /// Whether it is for all who ask.
    pub(super) fn is_for_everybody(&self) -> bool {
        self.takes.is_none()
    }

    /// Whether it has lost its last server.
    pub(super) fn is_left(&self) -> bool {
        self.bound.is_empty() && self.members.iter().all(|member| member.servers.is_empty())
    }

    /// Whether nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.takes.is_some() && self.members.is_empty() && self.bound.is_empty()
    }

    /// Whether it was stopped, and workers have taken every connection.
    pub(super) fn is_done(&self) -> bool {
        self.members.iter().all(|member| member.closing.is_none())
    }

    /// How many servers listen to which clients are to come.
    pub(super) fn listening(&self) -> usize {
        self.members.iter().map(Member::listening).sum()
    }

    /// Whether servers take what comes, now or as soon as they are ready.
    pub(super) fn is_served(&self) -> bool {
        self.best() <= Some(Rank::Held) && self.best().is_some()
    }

    /// How many connections wait for this worker alone, who is to end; `None` if no socket is this worker's own, or
    /// connections go on coming to it.
    pub(super) fn waiting_for(&self, worker: WorkerId) -> Option<usize> {
        let is_its_own =
            |member: &&Member| !self.is_shared && member.servers.iter().any(|server| server.worker == worker);
        let best = self.best();
        let left = self.members.iter().filter(is_its_own).filter(|member| Some(self.rank(member)) != best);
        left.map(|member| member.socket.status().map_or(0, |status| status.backlog)).reduce(|a, b| a + b)
    }

    /// The ports of its sockets.
    pub(super) fn port(&self) -> Option<u16> {
        self.members.first().map(|member| member.socket.address().port())
    }

    /// What its sockets are called (SO_COOKIE, socket(7)).
    pub(super) fn cookies(&self) -> impl Iterator<Item = u64> {
        self.members.iter().filter_map(|member| rustix::net::sockopt::socket_cookie(&member.socket).ok())
    }

    /// Whether clients of these sockets may come to one that listens at this address.
    pub(super) fn is_beside(&self, address: SocketAddr) -> bool {
        let Some(own) = self.members.first().map(|member| member.socket.address()) else { return false };
        let (own_ip, ip) = (own.ip().to_canonical(), address.ip().to_canonical());
        own.port() == address.port() && (own_ip == ip || own_ip.is_unspecified() || ip.is_unspecified())
    }

    /// What waits for this worker, who is to end and does not take it, goes to others, if the kernel passes it on.
    pub(super) fn give_up(&mut self, worker: WorkerId, launches: &mut LaunchTable, around: &Around<'_>) {
        let is_its =
            |member: &Member| !is_kept(member) && member.servers.iter().any(|server| server.worker == worker);
        if self.is_shared || !self.is_served() || !reuseport::migrates() {
            return;
        }
        while let Some(index) = self.members.iter().position(is_its) {
            let member = self.cease(index, around);
            self.is_gone(&member, launches, around);
        }
    }

    /// Looks at every socket, and does what has become due. Returns whether to look again soon.
    pub(super) fn look(
        &mut self,
        port_is_served: bool,
        launches: &mut LaunchTable,
        around: &Around<'_>,
    ) -> bool {
        let standing = self.standing(launches, around);
        self.see(&standing, launches, around);
        self.end_closed(&standing, launches, around);
        self.give_up_stuck(launches, around);
        self.give_up_left(&standing, port_is_served, around);
        self.steer_anew();
        let is_served = self.is_served();
        let waits = standing.iter().any(|(_, status)| status.backlog > 0);
        let is_left = self.members.iter().any(|member| member.servers.is_empty() && !is_kept(member));
        (is_served && (waits || is_left)) || self.members.iter().any(|member| member.closing.is_some())
    }

    /// How each stands. One that a server has shut is none of the group any more.
    fn standing(
        &mut self,
        launches: &mut LaunchTable,
        around: &Around<'_>,
    ) -> Vec<(MemberId, ListenerStatus)> {
        let mut standing = Vec::new();
        let mut index = 0;
        while let Some(member) = self.members.get(index) {
            match member.socket.status() {
                Ok(status) if !status.listens => {
                    debug!(service = %around.service, "a server has shut its listening socket");
                    let member = self.take_out(index, around);
                    self.is_gone(&member, launches, around);
                }
                Ok(status) => {
                    standing.push((member.id, status));
                    index += 1;
                }
                Err(error) => {
                    debug!(service = %around.service, %error, "cannot look at a listening socket");
                    index += 1;
                }
            }
        }
        standing
    }

    fn see(
        &mut self,
        standing: &[(MemberId, ListenerStatus)],
        launches: &mut LaunchTable,
        around: &Around<'_>,
    ) {
        if self.is_shared {
            return;
        }
        let look = |member: &Member| {
            let (_, status) = standing.iter().find(|(id, _)| *id == member.id)?;
            let takes = member.rank(false) == Rank::Taking;
            let listens = member.servers.iter().any(|server| server.listens);
            listens.then_some(Look { member: member.id, backlog: status.backlog, takes })
        };
        let looks: Vec<_> = self.members.iter().filter_map(look).collect();
        for change in self.waits.see(&looks, around.now) {
            debug!(service = %around.service, ?change, "the backlogs of workers");
            let (Change::LeftOut(id)
            | Change::Back(id)
            | Change::Waits(id)
            | Change::Stalled(id)
            | Change::Moving(id)) = change;
            let Some(member) = self.members.iter().find(|member| member.id == id) else { continue };
            match change {
                // Its server may have closed it, which nobody tells.
                Change::LeftOut(_) | Change::Waits(_) => {
                    member.holders().for_each(|(link, holder)| launches.slow(link, holder));
                }
                Change::Back(_) => {}
                Change::Stalled(_) => {
                    member.servers.iter().for_each(|server| stalls(server, launches, around));
                }
                Change::Moving(_) => {
                    member.servers.iter().for_each(|server| moves(server, launches, around.metrics));
                }
            }
        }
    }

    /// Closes what clients were kept out of, when the last handshakes had their time and the backlog is empty.
    fn end_closed(
        &mut self,
        standing: &[(MemberId, ListenerStatus)],
        launches: &mut LaunchTable,
        around: &Around<'_>,
    ) {
        for (id, status) in standing {
            let is_it = |member: &Member| {
                let has_ended = member.closing.is_some_and(|until| until <= around.now);
                let is_free = around.is_ending || member.servers.is_empty();
                member.id == *id && has_ended && is_free && status.backlog == 0
            };
            let Some(index) = self.members.iter().position(is_it) else { continue };
            let member = if around.is_ending {
                // At the end of all, workers may go on with their own copies: accept(2) is not to fail.
                self.steer_around(index);
                self.take_out(index, around)
            } else {
                self.cease(index, around)
            };
            self.is_gone(&member, launches, around);
        }
    }

    /// At the end of all, what a stuck worker would never take goes to others, if the kernel passes it on.
    fn give_up_stuck(&mut self, launches: &mut LaunchTable, around: &Around<'_>) {
        let is_stuck = |member: &Member| member.closing.is_some() && self.waits.is_stalled(member.id);
        let Some(index) = self.members.iter().position(is_stuck).filter(|_| around.is_ending) else { return };
        let any_takes = self.members.iter().any(|member| !self.waits.is_stalled(member.id));
        if any_takes && reuseport::migrates() {
            let member = self.cease(index, around);
            self.is_gone(&member, launches, around);
        }
    }

    /// Gives up what servers have left, if others take: at once, if nothing is lost by that, and otherwise when no heir has
    /// come in time.
    fn give_up_left(
        &mut self,
        standing: &[(MemberId, ListenerStatus)],
        port_is_served: bool,
        around: &Around<'_>,
    ) {
        if !port_is_served || around.is_ending {
            return;
        }
        let mut migrates = None;
        for (id, status) in standing {
            let is_left = |member: &Member| member.id == *id && member.servers.is_empty() && !is_kept(member);
            let Some(index) = self.members.iter().position(is_left) else { continue };
            let Some(left) = self.members.get(index).and_then(|member| member.left) else { continue };
            let has_others = self.members.iter().any(|member| member.is_listened_by(left.worker));
            let patience = if has_others { REPLACEMENT } else { INHERITANCE };
            let is_late = left.since + patience <= around.now;
            let is_empty = status.backlog == 0;
            let mut passes_on =
                || self.members.len() > 1 && *migrates.get_or_insert_with(reuseport::migrates);
            let lost = match (is_empty && left.was_retired, is_late) {
                (true, _) => 0,
                (false, _) if self.is_served() && passes_on() => 0,
                (false, true) => status.backlog,
                (false, false) => continue,
            };
            self.cease(index, around);
            self.waits.forget(*id);
            if lost > 0 {
                let label = Rejected::Backlog.label();
                around.metrics.rejected.with_label_values(&[label]).inc_by(lost as u64);
                let (service, slot) = (around.service, left.worker.slot);
                warn!(
                    %service, worker = %slot, connections = lost,
                    "connections that a worker had left in its backlog are lost: no other has come for them"
                );
            }
        }
    }

    fn is_gone(&mut self, member: &Member, launches: &mut LaunchTable, around: &Around<'_>) {
        if self.waits.forget(member.id) {
            member.servers.iter().for_each(|server| moves(server, launches, around.metrics));
        }
    }

    /// Hears of the next connection to any of them.
    pub(super) fn arm(&self, wakeups: &Wakeups) {
        for member in &self.members {
            if let Err(error) = wakeups.arm(&member.socket, member.id) {
                debug!(%error, "cannot watch a listening socket");
            }
        }
    }

    /// Ends a socket's listening, for all who have it.
    fn cease(&mut self, index: usize, around: &Around<'_>) -> Member {
        self.steer_around(index);
        if let Some(member) = self.members.get(index)
            && let Err(error) = member.socket.shut()
        {
            debug!(service = %around.service, %error, "cannot shut a listening socket");
        }
        self.take_out(index, around)
    }

    /// The kernel has done so: the last one is in its place.
    fn take_out(&mut self, index: usize, around: &Around<'_>) -> Member {
        let member = self.members.swap_remove(index);
        around.wakeups.remove(&member.socket);
        member
    }

    /// Until it is looked next, a socket that is about to be closed gets nothing.
    fn steer_around(&mut self, leaving: usize) {
        if let Some(past) = self.steered().past(leaving, self.members.len())
            && let Err(error) = self.tell(past)
        {
            debug!(%error, "cannot steer connections past a socket that is closed");
        }
    }

    fn best(&self) -> Option<Rank> {
        self.members.iter().map(|member| self.rank(member)).min()
    }

    fn rank(&self, member: &Member) -> Rank {
        member.rank(self.waits.leaves_out(member.id))
    }

    /// Tells the kernel to whom connections are to be steered, if that has changed. It is tried again with the next look
    /// if it cannot be done.
    fn steer_anew(&mut self) {
        if let Err(error) = self.steer()
            && !self.is_shared
        {
            debug!(%error, "cannot steer connections");
        }
    }

    fn steer(&mut self) -> io::Result<()> {
        self.tell(self.steered())
    }

    fn tell(&mut self, now: Steered) -> io::Result<()> {
        self.told.tell(self.members.first().map(|first| &first.socket), self.members.len(), now)
    }

    fn steered(&self) -> Steered {
        let of_rank = |rank: Rank| {
            let members = self.members.iter().enumerate().filter(|(_, member)| self.rank(member) == rank);
            members.map(|(index, _)| index).collect()
        };
        let best = self.best();
        let takers = best.map(of_rank).unwrap_or_default();
        let is_told = self.told.heeds_left_out() && best == Some(Rank::Taking);
        Steered { takers, left_out: if is_told { of_rank(Rank::LeftOut) } else { Vec::new() } }
    }
}

/// What is in an inherited socket's backlog is for whoever listens with it next.
fn is_kept(member: &Member) -> bool {
    member.socket.is_inherited()
}

fn stalls(server: &Server, launches: &mut LaunchTable, around: &Around<'_>) {
    around.metrics.stalled.with_label_values(&[&server.worker.slot.to_string()]).inc();
    launches.stalls(server.worker, around.now);
}

fn moves(server: &Server, launches: &mut LaunchTable, metrics: &Metrics) {
    metrics.stalled.with_label_values(&[&server.worker.slot.to_string()]).dec();
    launches.moves(server.worker);
}
