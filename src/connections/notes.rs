//! What the front notes of each connection: which worker it goes to.
//!
//! A note costs the front a system call and an uncontended lock, and wakes nobody but now and then. What nobody reads in time
//! is dropped and counted; whose connection it is, is then found out from the descriptors of processes. Who counts by what
//! is noted waits for room first, and loses none.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::sockopt::socket_cookie;
use rustix::net::{AddressFamily, SocketType};
use serde::{Deserialize, Serialize};

use super::snapshot::NotesSnapshot;
use crate::carry::Moment;
use crate::ids::WorkerId;

/// How many notes may wait to be read.
const MOST: usize = 32 * 1024;

/// After so many notes whoever reads them is woken.
const WAKE_AFTER: usize = 2048;

/// Room for so many is kept: for those, and for what is noted until they are read.
pub(super) const ROOM: usize = 2 * WAKE_AFTER;

/// Whether connections can be noted at all.
///
/// # Errors
/// The kernel gives sockets no names (SO_COOKIE, since Linux 4.6), or there can be no socket.
pub(crate) fn check() -> io::Result<()> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    socket_cookie(socket)?;
    Ok(())
}

/// What is noted of a connection. Under load there are some thousands of them, which are most of what the primary has in memory:
/// what is here takes little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    /// What the kernel calls it (SO_COOKIE).
    pub(super) cookie: u64,
    /// Whom it is given to; `None` if it was taken back.
    pub(super) worker: Option<WorkerId>,
    pub(super) client: Client,
    pub(super) accepted: Moment,
    pub(super) waited: Micros,
}

impl Note {
    /// Of the connection that the kernel calls so, of this client, which was accepted then and waited so long for the worker.
    pub(crate) fn new(
        cookie: u64,
        worker: Option<WorkerId>,
        client: SocketAddr,
        accepted: Instant,
        waited: Duration,
    ) -> Self {
        let (client, accepted, waited) = (client.into(), accepted.into(), waited.into());
        Self { cookie, worker, client, accepted, waited }
    }
}

/// A client's address, the same over IPv4 and over IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "SocketAddr", into = "SocketAddr")]
pub(super) struct Client(Ipv6Addr, u16);

impl From<SocketAddr> for Client {
    fn from(address: SocketAddr) -> Self {
        let ip = match address {
            SocketAddr::V4(address) => address.ip().to_ipv6_mapped(),
            SocketAddr::V6(address) => *address.ip(),
        };
        Self(ip, address.port())
    }
}

impl From<Client> for SocketAddr {
    fn from(Client(ip, port): Client) -> Self {
        (ip.to_canonical(), port).into()
    }
}

/// Microseconds, up to 71 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Duration", into = "Duration")]
pub(super) struct Micros(u32);

impl From<Duration> for Micros {
    fn from(duration: Duration) -> Self {
        Self(duration.as_micros().try_into().unwrap_or(u32::MAX))
    }
}

impl From<Micros> for Duration {
    fn from(Micros(micros): Micros) -> Self {
        Self::from_micros(micros.into())
    }
}

/// Where notes are made.
#[derive(Clone, Debug)]
pub(crate) struct Notes(Arc<Pad>);

#[derive(Debug)]
struct Pad {
    page: Mutex<Page>,
    wake: OwnedFd,
}

/// What was noted since it was last read.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// In the order in which they were made.
    pub(super) notes: Vec<Note>,
    /// How many were not kept.
    pub(super) dropped: u64,
    /// The local ports of clients' connections, and how many sockets have each.
    ports: BTreeMap<u16, usize>,
    /// Those that were served until they were last read.
    left: Vec<u16>,
    /// Who waits for room.
    waits: Option<Waker>,
}

impl Notes {
    /// None yet.
    ///
    /// # Errors
    /// Those of eventfd(2).
    pub(crate) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Pad { page: Mutex::default(), wake })))
    }

    /// A connection is about to be given to this worker. To be called before, so that its end is not known first.
    pub(crate) fn given(&self, socket: impl AsFd, note: impl FnOnce(u64) -> Note) {
        // Without a name it is found out from the descriptors of processes whose it is.
        if let Ok(cookie) = socket_cookie(socket) {
            self.add(note(cookie));
        }
    }

    /// A connection that was given, or was to be, is the front's again.
    pub(crate) fn taken_back(&self, socket: impl AsFd, client: SocketAddr, accepted: Instant) {
        self.given(socket, |cookie| Note::new(cookie, None, client, accepted, Duration::ZERO));
    }

    /// Whether a connection that is given next is surely noted. If not, `cx` is woken when there is room.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut page = self.page();
        if page.notes.len() < MOST {
            return Poll::Ready(());
        }
        page.waits = Some(cx.waker().clone());
        drop(page);
        self.wake();
        Poll::Pending
    }

    fn add(&self, note: Note) {
        let mut page = self.page();
        // Of those that come back there are no more than were given, and may lie in channels.
        if page.notes.len() >= MOST && note.worker.is_some() {
            page.dropped = page.dropped.saturating_add(1);
            return;
        }
        if page.notes.capacity() == 0 {
            // At once, and not in steps whose memory would stay in the heap.
            page.notes.reserve_exact(ROOM);
        }
        page.notes.push(note);
        if page.notes.len() == WAKE_AFTER {
            drop(page);
            self.wake();
        }
    }

    /// Clients connect to this port, too.
    pub(crate) fn serves(&self, port: u16) {
        *self.page().ports.entry(port).or_default() += 1;
    }

    /// They do so no more.
    pub(crate) fn serves_no_more(&self, port: u16) {
        let mut page = self.page();
        if let Some(count) = page.ports.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                page.ports.remove(&port);
                page.left.push(port);
            }
        }
    }

    /// The ports that clients connect to.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.page().ports.keys().copied().collect()
    }

    /// The same; those to which they have connected since this was last asked, and do no more, are added to `left`.
    pub(super) fn read_ports(&self, left: &mut BTreeSet<u16>) -> Vec<u16> {
        let mut page = self.page();
        left.extend(page.left.drain(..));
        page.ports.keys().copied().collect()
    }

    /// Takes what was noted; `room` is left in its place.
    pub(super) fn take(&self, room: Vec<Note>) -> (Vec<Note>, u64) {
        let mut page = self.page();
        let dropped = std::mem::take(&mut page.dropped);
        let notes = std::mem::replace(&mut page.notes, room);
        let waits = page.waits.take();
        drop(page);
        waits.into_iter().for_each(Waker::wake);
        (notes, dropped)
    }

    /// What was noted and not read. It is whole only when neither who makes notes nor who reads them goes on.
    pub(crate) fn snapshot(&self) -> NotesSnapshot {
        let page = self.page();
        NotesSnapshot { notes: page.notes.clone(), dropped: page.dropped, left_ports: page.left.clone() }
    }

    /// That was noted before anything else.
    pub(crate) fn restore(&self, snapshot: NotesSnapshot) {
        let NotesSnapshot { notes, dropped, left_ports } = snapshot;
        let mut page = self.page();
        page.notes.splice(0..0, notes);
        page.dropped = page.dropped.saturating_add(dropped);
        page.left.extend(left_ports);
        drop(page);
        self.wake();
    }

    /// Wakes whoever reads.
    pub(super) fn wake(&self) {
        // It is full only if it was not read for a long time.
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
    }

    /// Forgets that somebody was to be woken.
    pub(super) fn awake(&self) {
        let _ = rustix::io::read(&self.0.wake, &mut [0; 8]);
    }

    /// Readable when there is something to do.
    pub(super) fn waker(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        // A note is whole or not there.
        self.0.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::ids::Slot;

    fn note(cookie: u64) -> Note {
        let worker = Some(WorkerId { slot: Slot(1), launch: 1 });
        let client = ([127, 0, 0, 1], 1).into();
        Note::new(cookie, worker, client, Instant::now(), Duration::ZERO)
    }

    #[test]
    fn notes_are_read_in_order_and_bounded() {
        let notes = Notes::new().unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = socket_cookie(&socket).unwrap();
        notes.given(&socket, note);
        notes.taken_back(&socket, ([127, 0, 0, 1], 1).into(), Instant::now());
        let (read, dropped) = notes.take(Vec::new());
        assert_eq!(
            read.iter().map(|note| (note.cookie, note.worker.is_some())).collect::<Vec<_>>(),
            [(name, true), (name, false)]
        );
        assert_eq!(dropped, 0);
        for cookie in 0..MOST as u64 + 7 {
            notes.add(note(cookie));
        }
        let (read, dropped) = notes.take(Vec::new());
        assert_eq!((read.len(), dropped), (MOST, 7));
        assert_eq!(notes.take(Vec::new()), (Vec::new(), 0));
    }

    #[test]
    fn a_note_takes_little_room() {
        assert_eq!(size_of::<Note>(), 64);
    }

    #[test]
    fn a_client_is_the_same_over_ipv4_and_over_ipv6() {
        let client = |address: &str| Client::from(address.parse::<SocketAddr>().unwrap());
        assert_eq!(client("192.0.2.1:80"), client("[::ffff:192.0.2.1]:80"));
        for other in ["192.0.2.1:81", "192.0.2.2:80", "[::c000:201]:80", "[2001:db8::1]:80"] {
            assert_ne!(client("192.0.2.1:80"), client(other));
            assert_eq!(SocketAddr::from(client(other)).to_string(), other);
        }
    }

    #[test]
    fn who_waits_for_longer_than_can_be_noted_has_waited_for_as_long_as_can_be() {
        for (waited, noted) in [
            (Duration::ZERO, Duration::ZERO),
            (Duration::from_nanos(7_999), Duration::from_micros(7)),
            (Duration::from_secs(4_000), Duration::from_secs(4_000)),
            (Duration::from_secs(5_000), Duration::from_micros(u32::MAX.into())),
            (Duration::MAX, Duration::from_micros(u32::MAX.into())),
        ] {
            assert_eq!(Duration::from(Micros::from(waited)), noted);
        }
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_for_room_loses_no_note() {
        let notes = Notes::new().unwrap();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        let mut given = 0;
        while notes.poll_room(&cx).is_ready() {
            notes.add(note(given));
            given += 1;
        }
        notes.add(Note { worker: None, ..note(0) });
        assert!(!woken.0.load(Ordering::Relaxed));
        let (read, dropped) = notes.take(Vec::new());
        assert_eq!((given, read.len(), dropped), (MOST as u64, MOST + 1, 0));
        assert!(woken.0.load(Ordering::Relaxed) && notes.poll_room(&cx).is_ready());
    }

    #[test]
    fn what_nobody_has_read_is_read_in_the_next_image_before_what_is_noted_there() {
        let notes = Notes::new().unwrap();
        (0..MOST as u64 + 3).for_each(|cookie| notes.add(note(cookie)));
        notes.add(Note { worker: None, ..note(7) });
        notes.serves(80);
        notes.serves_no_more(80);
        let (snapshot, _) = crate::carry::testing::carried(&notes.snapshot());
        let next = Notes::new().unwrap();
        next.add(note(99_999));
        next.restore(snapshot);
        let ((mut before, dropped), (after, dropped_after)) = (notes.take(Vec::new()), next.take(Vec::new()));
        before.push(after[after.len() - 1]);
        assert!(before == after && before.len() == MOST + 2);
        assert_eq!((before[MOST + 1].cookie, dropped, dropped_after), (99_999, 3, 3));
        let mut left = BTreeSet::new();
        next.read_ports(&mut left);
        assert_eq!(left, BTreeSet::from([80]));
    }

    #[test]
    fn however_many_were_dropped_before_more_can_be() {
        let notes = Notes::new().unwrap();
        notes.restore(NotesSnapshot { notes: Vec::new(), dropped: u64::MAX, left_ports: Vec::new() });
        (0..=MOST as u64).for_each(|cookie| notes.add(note(cookie)));
        assert_eq!(notes.take(Vec::new()).1, u64::MAX);
    }

    #[test]
    fn a_port_is_served_until_its_last_socket_is_gone() {
        let notes = Notes::new().unwrap();
        notes.serves(80);
        notes.serves(80);
        notes.serves(443);
        notes.serves_no_more(80);
        assert_eq!(notes.ports(), [80, 443]);
        notes.serves_no_more(80);
        notes.serves_no_more(81);
        let mut left = BTreeSet::new();
        assert_eq!(notes.read_ports(&mut left), [443]);
        assert_eq!(left, BTreeSet::from([80]), "its connections may still be open");
    }
}
