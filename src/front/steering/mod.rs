//! Workers that accept by themselves: the listening sockets that they get, and to which of them the kernel steers clients.
//!
//! Each server gets a listening socket of its own, made here, of which the primary keeps a copy. The sockets for workers that
//! take the same are a [`group`], for which a [`program`] chooses, as it was last [told](steered); who leaves connections waiting is left out ([`waits`]). A
//! worker that ends leaves its socket, with all that waits in it, to the next that comes. Nothing is accepted here, so that
//! there is nothing to queue, to hand over or to take back. As long as nothing happens nothing is looked at ([`mod@wakeups`]).

mod group;
mod member;
mod program;
mod retiring;
mod steered;
mod waits;
mod wakeups;

pub(in crate::front) mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use self::group::{Around, Group};
use self::member::Server;
pub(crate) use self::program::By;
use self::retiring::{Retiring, Verdict};
use self::snapshot::{PortSnapshot, SteeringSnapshot};
pub(crate) use self::steered::{Steers, tried};
use self::wakeups::Wakeups;
use super::arrival::Arrivals;
use super::bound::{Bound, BoundAddress};
use super::handle::Notice;
use super::launches::LaunchTable;
use super::snapshot::Legacy;
use crate::front::links::{ChannelPermit, Gate};
use crate::ids::{LinkId, ServiceId, Slot, WorkerId};
use crate::metrics::Metrics;
use crate::protocol::wire::Binding;
use crate::sys::sock_diag::SockDiag;

/// How often it is looked while connections wait somewhere.
const LOOK: Duration = Duration::from_millis(10);

/// How long it is still looked after that.
const AWAKE: Duration = Duration::from_secs(1);

/// How often it is looked whether somebody else listens beside the workers, while connections come.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// What a worker's server asks for that shall accept by itself.
#[derive(Debug)]
pub(crate) struct Sharing {
    /// Whose it is.
    pub worker: WorkerId,
    /// The process that asks; 0 if it is not known.
    pub pid: i32,
    /// On what it listens.
    pub service: ServiceId,
    /// What it would bind without clusterd.
    pub binding: Binding,
    /// How it wants the socket.
    pub given: Given,
    /// Its permit, and thereby its name.
    pub permit: ChannelPermit,
    /// Told the copy.
    pub reply: oneshot::Sender<io::Result<OwnedFd>>,
}

/// How a server gets its socket. Clients are steered to it only once it has said that it listens, unless there is nobody
/// else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// It is bound, and listens when the server says that it does: until then clients are refused where nobody else
    /// listens. One that another server has left listens already.
    Bound,
    /// It listens: the server may call listen(2) or not.
    Listening,
}

/// The name of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct MemberId(u64);

/// The ports; those that are always served come first.
#[derive(Debug)]
pub(crate) struct Steering {
    ports: Vec<Port>,
    wakeups: Option<Wakeups>,
    /// When it is looked next; `None` while nothing happens.
    next_look: Option<Instant>,
    /// Until then it is looked, whether connections wait or not.
    awake_until: Instant,
    /// When it is next looked who else listens.
    next_look_around: Instant,
    retiring: BTreeMap<WorkerId, Retiring>,
    members: u64,
    /// How long a worker may leave connections waiting until it counts as stalled.
    timeout: Duration,
    by: By,
    metrics: Metrics,
}

/// A port with its sockets: a group for each kind of listener that workers have asked for.
#[derive(Debug)]
struct Port {
    id: ServiceId,
    /// Keeps the port, and refuses clients where no worker has a socket.
    reserved: Option<BoundAddress>,
    groups: Groups,
    is_ending: bool,
    /// It was said that somebody else listens on it.
    told_of_stranger: bool,
}

impl Steering {
    /// Nothing yet. A worker that leaves connections waiting for `timeout` counts as stalled.
    pub(crate) fn new(timeout: Duration, by: By, metrics: Metrics) -> Self {
        Self {
            ports: Vec::new(),
            wakeups: None,
            next_look: None,
            awake_until: Instant::now(),
            next_look_around: Instant::now(),
            retiring: BTreeMap::new(),
            members: 0,
            timeout,
            by,
            metrics,
        }
    }

    /// Keeps a port. Must be called on the runtime that will poll it.
    ///
    /// # Errors
    /// Those of epoll_create1(2) and epoll_ctl(2).
    pub(crate) fn open(&mut self, id: ServiceId, bound: Bound) -> io::Result<()> {
        let member = self.next_member();
        let wakeups = wakeups(&mut self.wakeups)?;
        let (reserved, groups) = match bound {
            Bound::Address(address) => (Some(address), Vec::new()),
            Bound::Socket(socket) => {
                (None, vec![Group::with((member, socket), wakeups, self.timeout, self.by)?])
            }
        };
        self.ports.push(Port {
            id,
            reserved,
            groups: Groups(groups),
            is_ending: false,
            told_of_stranger: false,
        });
        Ok(())
    }

    /// As it is written down, while nobody is to end.
    pub(in crate::front) fn snapshot(&self) -> SteeringSnapshot {
        SteeringSnapshot { ports: self.ports.iter().map(Port::snapshot).collect(), members: self.members }
    }

    /// Takes over what was written down, and what keeps the ports. The kernel is told anew to whom it is to steer.
    ///
    /// # Errors
    /// Those of epoll_create1(2) and epoll_ctl(2), and that the snapshot cannot be one.
    pub(in crate::front) fn resume(
        &mut self,
        snapshot: SteeringSnapshot,
        mut bound: BTreeMap<ServiceId, Vec<Bound>>,
        legacy: &mut Legacy,
    ) -> io::Result<()> {
        self.members = snapshot.members;
        for port in snapshot.ports {
            let reserved = bound.remove(&port.id).into_iter().flatten().find_map(|bound| match bound {
                Bound::Address(address) => Some(address),
                Bound::Socket(_) => None,
            });
            let wakeups = wakeups(&mut self.wakeups)?;
            let groups = port.groups.into_iter();
            let groups = groups.map(|group| Group::restored(group, wakeups, (self.timeout, self.by), legacy));
            self.ports.push(Port {
                id: port.id,
                reserved,
                groups: Groups(groups.collect::<io::Result<_>>()?),
                is_ending: false,
                told_of_stranger: port.told_of_stranger,
            });
        }
        self.look_soon();
        Ok(())
    }

    /// Of each server that listens, what is told of that.
    pub(in crate::front) fn have_listened(&self) -> impl Iterator<Item = Notice> {
        let of_port = |port: &Port| {
            let service = port.id;
            let servers = port.groups.0.iter().flat_map(Group::servers).filter(|server| server.listens);
            let notice = move |server: &Server| {
                let (worker, link) = (server.worker, server.permit.link());
                Notice::Listening { worker, service, link, ready: false }
            };
            servers.map(notice).collect::<Vec<_>>()
        };
        self.ports.iter().flat_map(of_port)
    }

    /// The slot of each server's worker that is stalled.
    pub(in crate::front) fn stalled(&self) -> impl Iterator<Item = Slot> {
        self.groups().flat_map(Group::stalled)
    }

    fn next_member(&mut self) -> MemberId {
        self.members = self.members.saturating_add(1);
        MemberId(self.members)
    }

    /// Closes the primary's copies of the sockets of a port.
    pub(crate) fn close(&mut self, id: ServiceId) {
        self.ports.retain(|port| port.id != id);
    }

    /// Gives a server a socket.
    pub(crate) fn share(&mut self, sharing: Sharing, launches: &mut LaunchTable) {
        let Sharing { worker, pid, service, binding, given, permit, reply } = sharing;
        let member = self.next_member();
        let gate = launches.attaches(worker);
        let server = Server { worker, permit, pid, gate, listens: false };
        let (timeout, by) = (self.timeout, self.by);
        let shared = self.with(service, |port, around| {
            if around.is_ending {
                return Err(io::Error::from_raw_os_error(libc::ECANCELED));
            }
            port.group_for(Arrivals::of(&binding), timeout, by).share(server, given, member, around)
        });
        // Who asked may be gone; the worker is then forgotten.
        let _ = reply.send(shared.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into())));
        self.look_soon();
    }

    /// Acts on one port.
    fn with<T>(&mut self, service: ServiceId, act: impl FnOnce(&mut Groups, &Around<'_>) -> T) -> Option<T> {
        let now = Instant::now();
        let port = self.ports.iter_mut().find(|port| port.id == service)?;
        let wakeups = self.wakeups.as_ref()?;
        let (groups, around) = port.split(wakeups, &self.metrics, now);
        Some(act(groups, &around))
    }

    /// A server listens: clients are steered to it.
    ///
    /// # Errors
    /// Those of listen(2).
    pub(crate) fn listens(&mut self, link: LinkId, launches: &mut LaunchTable) -> io::Result<()> {
        self.look_soon();
        let (Some(wakeups), now) = (&self.wakeups, Instant::now()) else { return Ok(()) };
        for port in &mut self.ports {
            let (groups, around) = port.split(wakeups, &self.metrics, now);
            let Some(listens) = groups.0.iter_mut().find_map(|group| group.listens(link, &around)) else {
                continue;
            };
            if let Some(worker) = listens? {
                launches.listens(worker, port.id, link, false);
            }
            return Ok(());
        }
        Ok(())
    }

    /// The worker is released: its servers that were held count.
    pub(crate) fn release(&mut self, worker: WorkerId) {
        self.set_gate(worker, |gate| gate == Gate::Held, Gate::Open);
    }

    fn set_gate(&mut self, worker: WorkerId, from: impl Fn(Gate) -> bool, to: Gate) {
        for group in self.ports.iter_mut().flat_map(|port| &mut port.groups.0) {
            group.set_gate(worker, &from, to);
        }
    }

    /// The worker is to get nothing more: clients are steered to others, and what is on its way to it is waited for.
    pub(crate) fn retire(&mut self, worker: WorkerId, now: Instant) {
        self.set_gate(worker, |_| true, Gate::Retired);
        let groups = self.groups().filter(|group| group.waiting_for(worker).is_some());
        let ports: Vec<u16> = groups.filter_map(Group::port).collect();
        if !ports.is_empty() {
            self.retiring.insert(worker, Retiring::new(handshakes(&ports), now));
            self.look_soon();
        }
    }

    /// Whether something is on its way to a worker that is to end.
    pub(crate) fn is_giving_to(&self, worker: WorkerId) -> bool {
        self.retiring.contains_key(&worker)
    }

    /// The servers that `which` picks are gone. What they leave stays for the next ones, unless workers listen on the port
    /// otherwise.
    pub(crate) fn drop_servers(
        &mut self,
        which: impl Fn(LinkId, WorkerId) -> bool,
        launches: &mut LaunchTable,
    ) {
        let (Some(wakeups), now) = (&self.wakeups, Instant::now()) else { return };
        for port in &mut self.ports {
            let (groups, around) = port.split(wakeups, &self.metrics, now);
            groups.0.iter_mut().for_each(|group| group.drop_servers(&which, launches, &around));
            groups.close_left(now);
        }
        self.look_soon();
    }

    /// The worker is gone.
    pub(crate) fn forget(&mut self, worker: WorkerId, launches: &mut LaunchTable) {
        self.retiring.remove(&worker);
        self.drop_servers(|_, gone| gone == worker, launches);
    }

    /// The app is stopped, and clients are refused.
    pub(crate) fn app_stopped(&mut self, now: Instant) {
        let groups = self.ports.iter_mut().flat_map(|port| &mut port.groups.0);
        groups.filter(|group| !group.is_for_everybody()).for_each(|group| group.close(false, now));
        self.look_soon();
    }

    /// Lets no new connection begin. Those that clients have already established are left to the workers.
    pub(crate) fn stop(&mut self, now: Instant) {
        for port in &mut self.ports {
            port.is_ending = true;
            port.reserved = None;
            port.groups.0.iter_mut().for_each(|group| group.close(false, now));
        }
        self.look_soon();
    }

    fn look_soon(&mut self) {
        let now = Instant::now();
        self.next_look = Some(now);
        self.awake_until = now + AWAKE;
    }

    /// Hears of the first connection after a silence.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        let Some(wakeups) = self.wakeups.as_ref().filter(|_| self.next_look.is_none()) else { return };
        match wakeups.poll(cx) {
            Poll::Pending => {}
            Poll::Ready(heard) => {
                if let Err(error) = heard {
                    debug!(%error, "cannot hear of connections");
                }
                self.look_soon();
                cx.waker().wake_by_ref();
            }
        }
    }

    /// When [`Steering::tick`] is next needed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next_look
    }

    /// Looks at all backlogs, and does what follows from that.
    pub(crate) fn tick(&mut self, now: Instant, launches: &mut LaunchTable) {
        if self.next_look.is_none_or(|next| next > now) {
            return;
        }
        let Some(wakeups) = &self.wakeups else { return self.next_look = None };
        let mut goes_on = false;
        for port in &mut self.ports {
            let (groups, around) = port.split(wakeups, &self.metrics, now);
            goes_on |= groups.look(launches, &around);
        }
        self.look_at_retiring(now, launches);
        if self.next_look_around <= now {
            self.next_look_around = now + LOOK_AROUND;
            self.look_for_strangers();
        }
        if goes_on || !self.retiring.is_empty() {
            self.awake_until = now + AWAKE;
        }
        self.next_look = (self.awake_until > now).then(|| now + LOOK);
        if let (None, Some(wakeups)) = (self.next_look, &self.wakeups) {
            self.groups().for_each(|group| group.arm(wakeups));
        }
    }

    /// Whoever runs as the same user may join a group (SO_REUSEPORT, socket(7)) where nothing can keep it out, and is then one of
    /// those that the kernel numbers.
    fn look_for_strangers(&mut self) {
        let ports: Vec<u16> = self.groups().filter_map(Group::port).collect();
        let listeners = SockDiag::open().and_then(|mut diag| diag.listeners(&ports));
        // Where the kernel does not tell nobody knows.
        let listeners = listeners.unwrap_or_default();
        let known: BTreeSet<u64> = self.groups().flat_map(Group::cookies).collect();
        for port in self.ports.iter_mut().filter(|port| !port.is_ending) {
            let stranger = listeners.iter().find(|listener| {
                let is_beside = |group: &Group| group.is_beside(listener.local);
                !known.contains(&listener.cookie) && port.groups.0.iter().any(is_beside)
            });
            let was_told = std::mem::replace(&mut port.told_of_stranger, stranger.is_some());
            if let Some(stranger) = stranger.filter(|_| !was_told) {
                warn!(
                    service = %port.id, address = %stranger.local,
                    "another process listens on the port beside the workers, as the same user and with SO_REUSEPORT: it may get \
                     connections, and others than clusterd chooses may get theirs"
                );
            }
        }
    }

    fn look_at_retiring(&mut self, now: Instant, launches: &mut LaunchTable) {
        let mut retiring = std::mem::take(&mut self.retiring);
        if retiring.values().any(|retiring| retiring.has_handshakes(now)) {
            let handshakes = handshakes(&self.groups().filter_map(Group::port).collect::<Vec<_>>());
            retiring.values_mut().for_each(|retiring| retiring.keep(&handshakes));
        }
        retiring.retain(|&worker, retiring| {
            let waiting = self.groups().filter_map(|group| group.waiting_for(worker)).reduce(|a, b| a + b);
            // If clients go on coming to it there is nobody else, and what waits is for its successor.
            let Some(backlog) = waiting else { return false };
            match retiring.see(backlog, now) {
                Verdict::Waits => true,
                Verdict::Done => false,
                Verdict::Stuck => {
                    self.give_up(worker, launches, now);
                    false
                }
            }
        });
        self.retiring = retiring;
    }

    fn give_up(&mut self, worker: WorkerId, launches: &mut LaunchTable, now: Instant) {
        let Some(wakeups) = &self.wakeups else { return };
        for port in &mut self.ports {
            let (groups, around) = port.split(wakeups, &self.metrics, now);
            groups.0.iter_mut().for_each(|group| group.give_up(worker, launches, &around));
        }
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.ports.iter().flat_map(|port| &port.groups.0)
    }

    /// Whether all were stopped, and workers have taken every connection.
    pub(crate) fn is_done(&self) -> bool {
        self.groups().all(Group::is_done)
    }

    /// How many servers listen on each port.
    pub(crate) fn listening(&self) -> impl Iterator<Item = usize> {
        self.ports.iter().map(|port| port.groups.0.iter().map(Group::listening).sum())
    }
}

fn wakeups(known: &mut Option<Wakeups>) -> io::Result<&Wakeups> {
    Ok(match known {
        Some(wakeups) => wakeups,
        none => none.insert(Wakeups::new()?),
    })
}

/// The groups of a port.
#[derive(Debug)]
struct Groups(Vec<Group>);

impl Port {
    fn snapshot(&self) -> PortSnapshot {
        PortSnapshot {
            id: self.id,
            reserved: self.reserved.as_ref().map(BoundAddress::snapshot),
            groups: self.groups.0.iter().map(Group::snapshot).collect(),
            told_of_stranger: self.told_of_stranger,
        }
    }

    fn split<'a>(
        &'a mut self,
        wakeups: &'a Wakeups,
        metrics: &'a Metrics,
        now: Instant,
    ) -> (&'a mut Groups, Around<'a>) {
        let (service, is_ending, reserved) = (self.id, self.is_ending, self.reserved.as_ref());
        (&mut self.groups, Around { service, reserved, is_ending, wakeups, metrics, now })
    }
}

impl Groups {
    /// The group for those who take these, which is begun for the first.
    fn group_for(&mut self, takes: Arrivals, timeout: Duration, by: By) -> &mut Group {
        let known = self.0.iter().position(|group| group.is_for(takes));
        let index = known.unwrap_or_else(|| {
            self.0.push(Group::new(takes, timeout, by));
            self.0.len() - 1
        });
        &mut self.0[index]
    }

    /// A group that has lost its last server stays for the next, unless workers listen otherwise.
    fn close_left(&mut self, now: Instant) {
        if self.0.iter().any(|group| group.listening() > 0) {
            let left = self.0.iter_mut().filter(|group| !group.is_for_everybody() && group.is_left());
            left.for_each(|group| group.close(true, now));
        }
    }

    /// Returns whether to look again soon.
    fn look(&mut self, launches: &mut LaunchTable, around: &Around<'_>) -> bool {
        let is_served = self.0.iter().any(Group::is_served);
        let mut goes_on = false;
        for group in &mut self.0 {
            goes_on |= group.look(is_served, launches, around);
        }
        self.0.retain(|group| !group.is_over());
        goes_on
    }
}

/// The clients whose handshakes at these ports have begun and not ended; none, if the kernel does not tell.
fn handshakes(ports: &[u16]) -> BTreeSet<SocketAddr> {
    let begun = SockDiag::open().and_then(|mut diag| diag.handshakes(ports));
    begun.map(|begun| begun.into_iter().map(|socket| socket.remote).collect()).unwrap_or_default()
}
