//! What the processes of each launch have bound: whether bind(2) of another listener fails beside it, the server's own
//! sockets, of which channels have taken the place, and the listening sockets that have.
//!
//! It knows an entry of a channel for as long as the front has that, and of a listening socket until the launch is gone. Whether a process still holds that, it does not know: the
//! kernel shows it nobody's close(2), and who asks has to look.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use socket2::{Domain, Type};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};
use tracing::debug;

use super::admission::Refusal;
use super::on_demand::Use;
use super::snapshot::{BoundSnapshot, EntrySnapshot, KeptSnapshot, wrong};
use crate::carry::{CarriedFd, CarriedFds};
use crate::front;
use crate::front::inheritance::{INHERITED, LINGER, OF_ONES_OWN};
use crate::front::links::Holder;
use crate::ids::{LinkId, ServiceId, Slot, WorkerId, WorkerPort};
use crate::protocol::wire::{Binding, Endpoint, SocketOption};
use crate::supervisor::process_table;
use crate::sys::closer::ForeignFd;
use crate::sys::{seqpacket, socket};

/// The table. Clones are the same one; the front's thread never waits for it.
#[derive(Clone, Debug)]
pub(crate) struct BoundChannels {
    table: Arc<Mutex<Table>>,
    /// One is looked at after the other.
    claims: Arc<tokio::sync::Mutex<()>>,
    /// Told whenever somebody listens.
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    /// Who has listened, and on which served port: also on what is closed by now.
    listened: BTreeSet<(WorkerId, WorkerPort)>,
    /// Of which workers it was said that they bind something twice: once, however often they are started.
    told: BTreeSet<Slot>,
}

#[derive(Debug)]
struct Entry {
    bound: Bound,
    place: Place,
    listens: bool,
    registration: Kept,
}

/// How long an entry is known.
#[derive(Debug)]
enum Kept {
    /// As long as whoever was given it keeps it.
    ByHolder(Weak<Registration>),
    /// Until it is removed: a listening socket. It is on its way to its process until this connection has ended.
    Here(Option<ForeignFd>),
}

/// A listener: whose it is, and what was bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Of which launch.
    pub worker: WorkerId,
    /// The user of the process that bound it: sockets of two users do not share a port.
    pub uid: u32,
    /// What it bound.
    pub binding: Binding,
}

/// That something may be bound: nothing else is meanwhile.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    table: &'a BoundChannels,
    bound: Bound,
    _alone: tokio::sync::MutexGuard<'a, ()>,
}

/// That a channel is in the table. The front keeps it as long as the channel.
#[derive(Debug)]
pub(crate) struct Registration {
    socket: Mutex<Option<ForeignFd>>,
}

/// The channel of a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its name in the front.
    pub link: LinkId,
    /// Who was seen to hold it.
    pub holder: Holder,
    /// What its [`ChannelName`](crate::protocol::wire::ChannelName) has to tell it from others; of a listening socket its
    /// SO_COOKIE (socket(7)).
    pub nonce: u64,
    /// The primary made it and sends it to Node, which may not have received it yet.
    pub given: bool,
}

impl BoundChannels {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { table: Arc::default(), claims: Arc::default(), news: Arc::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a process may bind this. The front is told to drop what the same launch has bound and nobody holds any more:
    /// whoever binds again and again has closed what it had.
    ///
    /// # Errors
    /// [`Refusal::InUse`].
    pub(crate) async fn claim(
        &self,
        bound: Bound,
        front: &front::handle::Handle,
    ) -> Result<Claim<'_>, Refusal> {
        let alone = self.claims.lock().await;
        let old = self.of_launch(&bound);
        let holders = old.iter().map(|(_, place)| place.holder).collect();
        // First: what arrives meanwhile is found to be held.
        let on_their_way: Vec<_> = old.iter().map(|(_, place)| self.is_on_its_way(place.link)).collect();
        let held = process_table::held(holders).await;
        let held = on_their_way.into_iter().zip(held).map(|(on_its_way, held)| on_its_way || held);
        for ((old, Place { link, holder, .. }), is_held) in old.into_iter().zip(held) {
            if !is_held {
                self.detach(link, front).await;
            } else if conflicts(&bound, &old) {
                return Err(Refusal::InUse {
                    worker: bound.worker,
                    address: bound.binding.address.into(),
                    holder: holder.pid,
                    other: old.binding.address.into(),
                    is_news: self.table().told.insert(bound.worker.slot),
                });
            }
        }
        Ok(Claim { table: self, bound, _alone: alone })
    }

    /// Drops one that nobody holds.
    async fn detach(&self, link: LinkId, front: &front::handle::Handle) {
        self.table().entries.retain(|entry| entry.place.link != link);
        front.detach(link).await;
    }

    /// Whether a socket that was sent may not have been received yet.
    fn is_on_its_way(&self, link: LinkId) -> bool {
        let mut table = self.table();
        let entry = table.entries.iter_mut().find(|entry| entry.place.link == link);
        let Some(Entry { registration: Kept::Here(way), .. }) = entry else { return false };
        way.take_if(|way| matches!(seqpacket::peek_bytes(&*way, &mut [0]), Ok(0)));
        way.is_some()
    }

    /// What is bound by the same launch: what would let bind(2) fail, and whatever a process of it has bound by itself.
    fn of_launch(&self, new: &Bound) -> Vec<(Bound, Place)> {
        let mut table = self.table();
        table.entries.retain(Entry::is_known);
        let is_asked_for = |entry: &&Entry| {
            conflicts(new, &entry.bound) || (entry.bound.worker == new.worker && !entry.place.given)
        };
        table.entries.iter().filter(is_asked_for).map(|entry| (entry.bound, entry.place)).collect()
    }

    fn register(&self, bound: Bound, place: Place, socket: Option<ForeignFd>) -> Arc<Registration> {
        let registration = Arc::new(Registration { socket: Mutex::new(socket) });
        let kept = Kept::ByHolder(Arc::downgrade(&registration));
        self.table().entries.push(Entry { bound, place, listens: false, registration: kept });
        registration
    }

    /// The listening socket of this launch that has this cookie: one on which nobody listens yet, if several have it because
    /// all workers share one.
    pub(crate) fn socket_with(&self, worker: WorkerId, cookie: u64) -> Option<LinkId> {
        let table = self.table();
        let of_worker =
            table.entries.iter().filter(|entry| entry.is_socket() && entry.bound.worker == worker);
        let those = of_worker.filter(|entry| entry.place.nonce == cookie);
        those.min_by_key(|entry| entry.listens).map(|entry| entry.place.link)
    }

    /// The cookie of the listening socket of this launch that has this inode.
    pub(crate) fn cookie_of(&self, worker: WorkerId, inode: u64) -> Option<u64> {
        let table = self.table();
        let of_worker =
            table.entries.iter().filter(|entry| entry.is_socket() && entry.bound.worker == worker);
        of_worker.map(|entry| entry.place).find(|place| place.holder.inode == inode).map(|place| place.nonce)
    }

    /// The socket of a channel of this launch, or a new one in its place if it has none; `None` if there is no such
    /// channel.
    ///
    /// # Errors
    /// Those of socket(2) and fcntl(2).
    pub(crate) fn socket_of(&self, worker: WorkerId, nonce: u64) -> Option<io::Result<ForeignFd>> {
        let table = self.table();
        let entry =
            table.entries.iter().find(|entry| entry.bound.worker == worker && entry.place.nonce == nonce)?;
        let Kept::ByHolder(registration) = &entry.registration else { return None };
        let registration = registration.upgrade()?;
        let mut socket = registration.socket.lock().unwrap_or_else(PoisonError::into_inner);
        Some(copy_or_new(&mut socket, entry.bound.binding.address))
    }

    /// A server of this launch listens, on this channel.
    pub(crate) fn listened(&self, worker: WorkerId, service: ServiceId, link: LinkId) {
        let mut table = self.table();
        let port = match service {
            ServiceId::Port(port) => Some(port),
            ServiceId::Opened(_) => {
                let entry = table.entries.iter().find(|entry| entry.place.link == link);
                entry.map(|entry| WorkerPort(entry.bound.binding.address.port()))
            }
        };
        table.listened.extend(port.map(|port| (worker, port)));
        if let Some(entry) = table.entries.iter_mut().find(|entry| entry.place.link == link) {
            entry.listens = true;
            if let Kept::Here(way) = &mut entry.registration {
                *way = None;
            }
        }
        drop(table);
        self.news.notify_waiters();
    }

    /// Whether this is so, or becomes so within `time` because a server begins to listen.
    pub(crate) async fn becomes(&self, time: Duration, is_so: impl Fn() -> bool) -> bool {
        let until = Instant::now() + time;
        loop {
            let mut news = pin!(self.news.notified());
            // From here on nothing is missed.
            news.as_mut().enable();
            if is_so() {
                return true;
            }
            if tokio::time::timeout_at(until, news).await.is_err() {
                return is_so();
            }
        }
    }

    /// Whether a server listens on the channel with this nonce.
    pub(crate) fn channel_listens(&self, worker: WorkerId, nonce: u64) -> bool {
        let table = self.table();
        let of_worker = table.entries.iter().filter(|entry| entry.bound.worker == worker);
        of_worker.filter(|entry| entry.place.nonce == nonce).any(|entry| entry.listens)
    }

    /// Whether a server listens on this one.
    pub(crate) fn listens(&self, link: LinkId) -> bool {
        self.table().entries.iter().any(|entry| entry.place.link == link && entry.listens)
    }

    /// What the next image goes on with. Nobody may change it meanwhile.
    pub(crate) fn snapshot(&self) -> BoundSnapshot {
        let table = self.table();
        BoundSnapshot {
            entries: table.entries.iter().filter_map(Entry::snapshot).collect(),
            listened: table.listened.iter().copied().collect(),
            told: table.told.iter().copied().collect(),
        }
    }

    /// Goes on with what another image had. Beside it are the registrations that the front keeps, by their channels.
    ///
    /// # Errors
    /// It is not what [`BoundChannels::snapshot`] has told; a descriptor is missing.
    pub(crate) fn restore(
        snapshot: BoundSnapshot,
        fds: &CarriedFds,
    ) -> io::Result<(Self, HashMap<LinkId, Arc<Registration>>)> {
        let BoundSnapshot { entries, listened, told } = snapshot;
        let (channels, mut registrations, mut links) = (Self::new(), HashMap::new(), HashSet::new());
        let mut table = channels.table();
        table.listened = listened.into_iter().collect();
        table.told = told.into_iter().collect();
        for entry in entries {
            let (entry, registration) = Entry::restore(entry, fds)?;
            let link = entry.place.link;
            if !links.insert(link) {
                return Err(wrong("two listeners of workers have one channel"));
            }
            registrations.extend(registration.map(|registration| (link, registration)));
            table.entries.push(entry);
        }
        drop(table);
        Ok((channels, registrations))
    }

    /// Whether any process has bound such an address, and whether one listens there.
    pub(super) fn use_of(&self, is_such: impl Fn(&Binding) -> bool) -> Use {
        let table = self.table();
        let kept = table.entries.iter().filter(|entry| match &entry.registration {
            Kept::ByHolder(registration) => registration.strong_count() > 0,
            Kept::Here(_) => true,
        });
        kept.filter(|entry| is_such(&entry.bound.binding)).fold(Use::default(), |seen, entry| Use {
            is_bound: true,
            is_listened_on: seen.is_listened_on || entry.listens,
        })
    }

    /// Whether any has listened on this served port.
    pub(crate) fn has_listened(&self, worker: WorkerId, port: WorkerPort) -> bool {
        self.table().listened.contains(&(worker, port))
    }

    /// The launch is gone.
    pub(crate) fn forget(&self, worker: WorkerId) {
        let mut table = self.table();
        table.listened.retain(|(listener, _)| *listener != worker);
        table.entries.retain(|entry| !(entry.is_socket() && entry.bound.worker == worker));
    }
}

impl Claim<'_> {
    /// Remembers a channel, and the server's own `socket` if it has one.
    pub(crate) fn register(self, place: Place, socket: Option<ForeignFd>) -> Arc<Registration> {
        self.table.register(self.bound, place, socket)
    }

    /// Remembers a listening socket. One that is sent to its process is so by this connection, which the process ends once it has
    /// it.
    pub(crate) fn register_socket(self, place: Place, way: Option<ForeignFd>) {
        let registration = Kept::Here(way);
        let entry = Entry { bound: self.bound, place, listens: false, registration };
        self.table.table().entries.push(entry);
    }
}

impl Entry {
    /// As it is written down; `None` if nobody knows it any more.
    fn snapshot(&self) -> Option<EntrySnapshot> {
        let kept = match &self.registration {
            Kept::ByHolder(registration) => {
                let registration = registration.upgrade()?;
                let socket = registration.socket.lock().unwrap_or_else(PoisonError::into_inner);
                KeptSnapshot::Channel { socket: socket.as_ref().map(CarriedFd::of) }
            }
            Kept::Here(way) => KeptSnapshot::Socket { way: way.as_ref().map(CarriedFd::of) },
        };
        let Bound { worker, uid, binding } = self.bound;
        let Place { link, holder: Holder { inode, pid }, nonce, given } = self.place;
        let listens = self.listens;
        Some(EntrySnapshot { worker, uid, binding, link, inode, pid, nonce, given, listens, kept })
    }

    /// Of a channel, it is known for as long as what is beside it is kept.
    fn restore(snapshot: EntrySnapshot, fds: &CarriedFds) -> io::Result<(Self, Option<Arc<Registration>>)> {
        let EntrySnapshot { worker, uid, binding, link, inode, pid, nonce, given, listens, kept } = snapshot;
        let take = |fd: Option<CarriedFd>| fd.map(|fd| fds.take(fd).map(ForeignFd::from)).transpose();
        let (registration, kept) = match kept {
            KeptSnapshot::Socket { way } => (None, Kept::Here(take(way)?)),
            KeptSnapshot::Channel { socket } => {
                let registration = Arc::new(Registration { socket: Mutex::new(take(socket)?) });
                let kept = Kept::ByHolder(Arc::downgrade(&registration));
                (Some(registration), kept)
            }
        };
        let bound = Bound { worker, uid, binding };
        let place = Place { link, holder: Holder { inode, pid }, nonce, given };
        Ok((Self { bound, place, listens, registration: kept }, registration))
    }

    fn is_known(&self) -> bool {
        match &self.registration {
            Kept::ByHolder(registration) => registration.strong_count() > 0,
            Kept::Here(_) => true,
        }
    }

    /// Whether it is a listening socket, and no channel.
    fn is_socket(&self) -> bool {
        matches!(self.registration, Kept::Here(_))
    }
}

fn copy_or_new(socket: &mut Option<ForeignFd>, address: Endpoint) -> io::Result<ForeignFd> {
    if let Some(socket) = socket {
        return socket.try_clone();
    }
    let domain = Domain::for_address(address.into());
    let new = ForeignFd::from(OwnedFd::from(socket2::Socket::new(domain, Type::STREAM, None)?));
    let copy = new.try_clone()?;
    *socket = Some(new);
    Ok(copy)
}

/// The options that the server set on its socket before it bound it, of those that connections inherit: the ones in which
/// it differs from a new one.
pub(super) fn options_set_on(socket: &impl AsFd) -> Vec<SocketOption> {
    let Ok(domain) = socket2::SockRef::from(socket).domain() else { return Vec::new() };
    let Ok(new) = socket2::Socket::new(domain, Type::STREAM, None) else { return Vec::new() };
    in_which_differs(socket, &new, &[]).collect()
}

/// Makes a listening socket as the server has made its own: it may be new, or have served another server before.
pub(super) fn set_as_on(own: &impl AsFd, listener: &impl AsFd) {
    for wanted in in_which_differs(own, listener, OF_ONES_OWN) {
        if let Err(error) = socket::set_option(listener, wanted.level, wanted.name, wanted.bytes()) {
            debug!(level = wanted.level, name = wanted.name, %error, "cannot set an option of a server's listener");
        }
    }
}

/// The options of `socket` that connections inherit, and these, which are not the same on `other`.
fn in_which_differs(
    socket: &impl AsFd,
    other: &impl AsFd,
    further: &'static [(i32, i32)],
) -> impl Iterator<Item = SocketOption> {
    INHERITED.iter().chain([&LINGER]).chain(further).filter_map(move |&(level, name)| {
        let value = option(socket, level, name)?;
        (option(other, level, name) != Some(value)).then(|| as_it_was_set(value))
    })
}

fn option(socket: impl AsFd, level: i32, name: i32) -> Option<SocketOption> {
    let mut value = [0; SocketOption::MAX_LEN];
    SocketOption::new(level, name, socket::option(socket, level, name, &mut value).ok()?)
}

/// getsockopt(2) tells twice the size of a buffer that was set (socket(7)).
fn as_it_was_set(option: SocketOption) -> SocketOption {
    match (option.level, option.name, option.bytes()) {
        (libc::SOL_SOCKET, libc::SO_RCVBUF | libc::SO_SNDBUF, &[a, b, c, d]) => {
            let half = i32::from_ne_bytes([a, b, c, d]) / 2;
            SocketOption::new(option.level, option.name, &half.to_ne_bytes()).unwrap_or(option)
        }
        _ => option,
    }
}

/// Whether this is a socket that a server would bind and listen with.
pub(super) fn is_tcp(socket: impl AsFd) -> bool {
    let socket = socket2::SockRef::from(&socket);
    let is_internet = socket.domain().is_ok_and(|domain| matches!(domain, Domain::IPV4 | Domain::IPV6));
    is_internet && socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
}

/// Whether bind(2) of `new` fails while `old` listens, as Linux decides it (`inet_csk_bind_conflict`). With SO_REUSEADDR
/// on both, the kernel lets bind(2) pass as long as `old` does not listen, and refuses the second listen(2) instead; here
/// it is refused at bind(2).
fn conflicts(new: &Bound, old: &Bound) -> bool {
    let share_port = new.binding.reuses_port && old.binding.reuses_port && new.uid == old.uid;
    new.worker == old.worker && !share_port && overlap(&new.binding, &old.binding)
}

/// Whether a client could mean both (`inet_rcv_saddr_equal`).
fn overlap(a: &Binding, b: &Binding) -> bool {
    if a.address.port() != b.address.port() {
        return false;
    }
    match (a.address, b.address) {
        (
            Endpoint::V6 { address: first, scope: one, .. },
            Endpoint::V6 { address: second, scope: other, .. },
        ) => {
            let other_interface = one != 0 && other != 0 && one != other;
            let takes_all = |wildcard: &Binding, wild: [u8; 16], address: [u8; 16]| {
                wild == [0; 16] && !(wildcard.only_v6 && mapped(address).is_some())
            };
            !other_interface
                && (first == second
                    || takes_all(a, first, second)
                    || takes_all(b, second, first)
                    || matches!((mapped(first), mapped(second)), (Some(x), Some(y)) if overlap_v4(x, y)))
        }
        (Endpoint::V4 { address: x, .. }, Endpoint::V4 { address: y, .. }) => overlap_v4(x, y),
        (Endpoint::V4 { address, .. }, Endpoint::V6 { address: v6, .. }) => {
            overlap_mixed(address, v6, b.only_v6)
        }
        (Endpoint::V6 { address: v6, .. }, Endpoint::V4 { address, .. }) => {
            overlap_mixed(address, v6, a.only_v6)
        }
    }
}

fn overlap_mixed(v4: [u8; 4], v6: [u8; 16], only_v6: bool) -> bool {
    match mapped(v6) {
        Some(address) => overlap_v4(v4, address),
        None => v6 == [0; 16] && !only_v6,
    }
}

fn overlap_v4(a: [u8; 4], b: [u8; 4]) -> bool {
    a == b || a == [0; 4] || b == [0; 4]
}

/// The IPv4 address of a v4-mapped one.
fn mapped(address: [u8; 16]) -> Option<[u8; 4]> {
    Ipv6Addr::from(address).to_ipv4_mapped().map(|ip| ip.octets())
}

#[cfg(test)]
mod tests;
