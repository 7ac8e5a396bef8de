//! The thread of this room: reads notes and events, lists sockets when that is needed, and tells what follows.
//!
//! What follows, and when it is looked, is decided in the other files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::drains::{self, Drain, counts};
use super::handle::{EndsSink, FreedSink, Inbox, Request, Telling};
use super::holders::{Holders, Kin};
use super::listing::{Listing, is_refusal};
use super::notes::{Note, Notes, ROOM};
use super::pace::{Pace, Waiting};
use super::table::{Ends, Noted, Outcome, Table};
use super::{ConnectionState, ConnectionsSnapshot, Handle, OpenConnection};
use crate::carry::StandStill;
use crate::ids::WorkerId;
use crate::sys::mark::Family;
use crate::sys::sock_diag::{DestroyedSockets, News, TcpSocket, state};

/// Events are gathered for so long, unless somebody wants to know at once.
const BATCH: Duration = Duration::from_millis(2);

/// Starts the thread, which ends with the program. `workers_accept` tells that the front notes nothing. With what was
/// `restored` it goes on where an image before has stood still.
///
/// # Errors
/// There can be no thread, or nothing like what was restored.
pub(crate) fn start(
    notes: Notes,
    family: Family,
    workers_accept: bool,
    restored: Option<ConnectionsSnapshot>,
) -> io::Result<Handle> {
    let inbox = Inbox::default();
    let handle = Handle::new(Arc::clone(&inbox), notes.clone());
    let mut task = Task::new(inbox, notes, family, workers_accept);
    if let Some(restored) = restored {
        task.restore(restored)?;
    }
    let run = move || task.run();
    thread::Builder::new().name("connections".to_owned()).stack_size(256 * 1024).spawn(run)?;
    Ok(handle)
}

/// Begins with what was restored, without a thread, and looks once: all of it has ended.
///
/// # Errors
/// There can be nothing like it.
#[cfg(feature = "internal")]
pub(crate) fn trial(notes: Notes, restored: ConnectionsSnapshot) -> io::Result<()> {
    let mut task = Task::new(Inbox::default(), notes, Family::of_number(1), false);
    task.restore(restored)?;
    let (noted, now) = (task.snapshot().noted.len(), Instant::now());
    let ended = [task.table.listed(&[], Ends::Lost, now), task.table.listed(&[], Ends::Lost, now)];
    assert!(ended.iter().map(|outcome| outcome.ended.len()).sum::<usize>() <= noted);
    assert_eq!(task.snapshot().noted.len(), 0);
    Ok(())
}

struct Task {
    inbox: Inbox,
    notes: Notes,
    /// Room for notes.
    room: Vec<Note>,
    /// Whether each connection that a worker has was noted.
    notes_all: bool,
    listing: Listing,
    events: Events,
    table: Table,
    holders: Holders,
    drains: Vec<Drain>,
    snapshots: Vec<oneshot::Sender<io::Result<Vec<OpenConnection>>>>,
    ends: Vec<EndsSink>,
    freed: Vec<FreedSink>,
    telling: Telling,
    hurries: bool,
    /// Ports that are served no more, and may still have connections.
    left_ports: BTreeSet<u16>,
    pace: Pace,
    /// Somebody has asked it to stand still.
    asked: Option<StandStill<ConnectionsSnapshot>>,
}

/// What is heard of ends.
#[derive(Debug)]
enum Events {
    /// Nothing, because nobody wants to know.
    Off,
    /// All of them.
    On { socket: DestroyedSockets, ports: Vec<u16> },
    /// The kernel does not tell.
    Never,
}

impl Task {
    fn new(inbox: Inbox, notes: Notes, family: Family, workers_accept: bool) -> Self {
        Self {
            inbox,
            notes,
            room: Vec::new(),
            notes_all: !workers_accept,
            listing: Listing::new(),
            events: Events::Off,
            table: Table::default(),
            holders: Holders::new(family),
            drains: Vec::new(),
            snapshots: Vec::new(),
            ends: Vec::new(),
            freed: Vec::new(),
            telling: Telling::Gathered,
            hurries: false,
            left_ports: BTreeSet::new(),
            pace: Pace::new(Instant::now()),
            asked: None,
        }
    }

    fn snapshot(&self) -> ConnectionsSnapshot {
        ConnectionsSnapshot {
            noted: self.table.snapshot(),
            groups: self.holders.snapshot(),
            notes_all: self.notes_all,
            left_ports: self.left_ports.iter().copied().collect(),
        }
    }

    fn restore(&mut self, snapshot: ConnectionsSnapshot) -> io::Result<()> {
        let ConnectionsSnapshot { noted, groups, notes_all, left_ports } = snapshot;
        self.table = Table::restored(noted);
        self.holders.restore(groups)?;
        self.notes_all &= notes_all;
        self.left_ports.extend(left_ports);
        Ok(())
    }

    fn run(mut self) {
        loop {
            self.wait();
            self.notes.awake();
            self.take_requests();
            self.listen();
            self.hear();
            if let Some(asked) = self.asked.take() {
                asked.block_with(self.snapshot());
            }
            if self.due().is_some_and(|due| due <= Instant::now()) {
                self.look();
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let timeout = self.due().map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let wake = self.notes.waker();
        let mut fds = vec![PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        if let Events::On { socket, .. } = &self.events {
            fds.push(PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
        }
        if let Err(error) = poll(&mut fds, timeout.as_ref()) {
            debug!(%error, "cannot wait for news of connections");
            thread::sleep(BATCH);
        }
        let has_events = fds.get(1).is_some_and(|events| !events.revents().is_empty());
        if has_events && self.telling == Telling::Gathered {
            thread::sleep(BATCH);
        }
    }

    fn take_requests(&mut self) {
        let requests = std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        for request in requests {
            match request {
                Request::Began { worker, group } => self.holders.began(worker, group),
                Request::Gone(worker) => {
                    self.holders.gone(worker);
                    self.pace.news();
                }
                Request::Snapshot(reply) => self.snapshots.push(reply),
                Request::Drain { worker, ports, done } => {
                    self.drains.push(Drain { worker, ports, done, clear: 0 });
                    self.pace.drain_began();
                }
                Request::WatchEnds(sink) => self.ends.push(sink),
                Request::WatchFreed(sink, telling) => {
                    self.freed.push(sink);
                    if telling == Telling::AtOnce {
                        self.telling = telling;
                    }
                }
                Request::Hurry(hurries) => self.hurries = hurries,
                Request::NotNoted => self.notes_all = false,
                Request::StandStill(asked) => self.asked = Some(asked),
            }
        }
    }

    fn is_watched(&self) -> bool {
        !self.ends.is_empty() || !self.freed.is_empty()
    }

    /// Whether all that end are heard of.
    fn ends(&self) -> Ends {
        match self.events {
            _ if !self.is_watched() => Ends::Unwatched,
            Events::On { .. } if !self.pace.is_healing() => Ends::Told,
            _ => Ends::Lost,
        }
    }

    /// Listens to events while somebody needs them.
    fn listen(&mut self) {
        let is_wanted = self.is_watched() || !self.drains.is_empty();
        if !is_wanted {
            if matches!(self.events, Events::On { .. }) {
                self.events = Events::Off;
            }
            return;
        }
        let wanted = self.ports();
        match &mut self.events {
            Events::On { socket, ports } if *ports != wanted => {
                socket.only(&wanted);
                *ports = wanted;
            }
            Events::Off => match DestroyedSockets::listen(&wanted) {
                Ok(socket) => {
                    self.events = Events::On { socket, ports: wanted };
                    // What ended before is not told any more.
                    self.pace.events_lost();
                }
                Err(error) if is_refusal(&error) => {
                    debug!(%error, "the kernel does not tell of connections that end; looking for them instead");
                    self.events = Events::Never;
                }
                Err(error) => debug!(%error, "cannot hear of connections that end; trying again"),
            },
            Events::On { .. } | Events::Never => {}
        }
    }

    /// The ports of clients' connections, in order: those that are served, that were, and that somebody waits for.
    fn ports(&mut self) -> Vec<u16> {
        let served = self.notes.read_ports(&mut self.left_ports);
        let drained = self.drains.iter().flat_map(|drain| &drain.ports);
        let all: BTreeSet<u16> = served.iter().chain(&self.left_ports).chain(drained).copied().collect();
        all.into_iter().collect()
    }

    /// Reads events and then the notes, in this order: the note of a connection comes before its end.
    fn hear(&mut self) {
        let mut destroyed = Vec::new();
        if let Events::On { socket, .. } = &mut self.events {
            match socket.read(|socket| destroyed.push(socket)) {
                Ok(News::All) => {}
                Ok(News::SomeLost) => {
                    debug!("more connections have ended at once than can be told; looking for them instead");
                    self.pace.events_lost();
                    self.pace.news();
                }
                Err(error) => {
                    warn!(%error, "cannot read which connections have ended; looking for them instead");
                    self.events = Events::Never;
                    self.pace.events_lost();
                }
            }
        }
        self.read_notes();
        let (now, mut outcome) = (Instant::now(), Outcome::default());
        for socket in &destroyed {
            let worker = self.table.destroyed(socket, now, &mut outcome);
            let is_awaited = |drain: &Drain| worker.is_none_or(|worker| worker == drain.worker);
            if self.drains.iter().any(is_awaited) {
                self.pace.news();
            }
        }
        self.tell(outcome);
    }

    fn read_notes(&mut self) {
        let (mut notes, dropped) = self.notes.take(std::mem::take(&mut self.room));
        if dropped > 0 {
            debug!(dropped, "connections were handed over more quickly than they were noted");
            self.notes_all = false;
        }
        notes.drain(..).for_each(|note| self.table.note(note));
        if notes.capacity() <= ROOM {
            self.room = notes;
        }
    }

    fn tell(&mut self, outcome: Outcome) {
        let Outcome { ended, freed } = outcome;
        if !ended.is_empty() {
            for sink in &mut self.ends {
                sink(ended.clone());
            }
        }
        if !freed.is_empty() {
            for sink in &mut self.freed {
                sink(freed.clone());
            }
        }
    }

    /// When it is to be looked next, if at all.
    fn due(&self) -> Option<Instant> {
        let ends = self.ends();
        self.pace.due(Waiting {
            snapshot: !self.snapshots.is_empty(),
            drain: !self.drains.is_empty(),
            place: self.hurries && !self.freed.is_empty(),
            lost: ends == Ends::Lost,
            overdue: if ends == Ends::Told { self.table.overdue_at() } else { None },
            stale: self.table.is_stale(),
        })
    }

    /// Lists all connections, and lets everybody know who waits for that.
    fn look(&mut self) {
        let start = Instant::now();
        let ports = self.ports();
        self.read_notes();
        let listed = self.listing.connections(&ports, &self.table);
        if let Err(error) = &listed {
            debug!(%error, "cannot list connections now");
        }
        self.pace.look_began();
        match listed {
            Ok(sockets) => self.looked_at(&sockets),
            Err(error) => {
                for reply in self.snapshots.drain(..) {
                    let _ = reply.send(Err(io::Error::new(error.kind(), error.to_string())));
                }
            }
        }
        self.pace.look_ended(start, Instant::now());
    }

    fn looked_at(&mut self, sockets: &[TcpSocket]) {
        let mut kin = None;
        self.answer(sockets, &mut kin);
        let outcome = self.table.listed(sockets, self.ends(), Instant::now());
        self.tell(outcome);
        self.pace.listed();
        self.left_ports.retain(|port| sockets.iter().any(|socket| socket.local.port() == *port));
        if !self.drains.is_empty()
            && drains::look(&mut self.drains, sockets, &self.table, &mut self.holders, &mut kin)
        {
            self.pace.found_clear();
        }
    }

    fn answer(&mut self, sockets: &[TcpSocket], kin: &mut Option<io::Result<Kin>>) {
        if self.snapshots.is_empty() {
            return;
        }
        let open = sockets.iter().filter(|socket| counts(socket));
        let unnoted: BTreeSet<u64> = match self.notes_all {
            true => BTreeSet::new(),
            false => {
                let unnoted = open.clone().filter(|socket| self.table.get(socket.cookie).is_none());
                unnoted.map(|socket| socket.inode).collect()
            }
        };
        let holders = self.find_holders(&unnoted, kin);
        let now = Instant::now();
        let connections: Vec<OpenConnection> = open
            .filter_map(|socket| {
                let noted = self.table.get(socket.cookie);
                let holder = holders.get(&socket.inode).copied();
                Some(OpenConnection {
                    cookie: socket.cookie,
                    worker: noted.and_then(|noted| noted.worker).or(holder),
                    local: socket.local,
                    client: socket.remote,
                    state: connection_state(socket)?,
                    age: noted.map(|noted| now.saturating_duration_since(noted.accepted())),
                    queued_for: noted.filter(|noted| noted.worker.is_some()).map(Noted::waited),
                    figures: socket.figures.map(Into::into),
                })
            })
            .collect();
        for reply in self.snapshots.drain(..) {
            let _ = reply.send(Ok(connections.clone()));
        }
    }

    /// Which worker holds which of these sockets.
    fn find_holders(
        &mut self,
        sockets: &BTreeSet<u64>,
        kin: &mut Option<io::Result<Kin>>,
    ) -> BTreeMap<u64, WorkerId> {
        let mut found = BTreeMap::new();
        if sockets.is_empty() {
            return found;
        }
        let Ok(kin) = kin.get_or_insert_with(|| self.holders.kin()) else { return found };
        for worker in self.holders.workers() {
            if let Ok(held) = self.holders.held(kin, worker, sockets, true) {
                found.extend(held.sockets.into_iter().map(|socket| (socket, worker)));
            }
        }
        found
    }
}

fn connection_state(socket: &TcpSocket) -> Option<ConnectionState> {
    match socket.state {
        state::ESTABLISHED => Some(ConnectionState::Established),
        state::CLOSE_WAIT => Some(ConnectionState::CloseWait),
        state::FIN_WAIT1 => Some(ConnectionState::FinWait1),
        state::FIN_WAIT2 => Some(ConnectionState::FinWait2),
        _ => None,
    }
}
