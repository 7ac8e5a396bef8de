//! What the rest of the program asks of the room.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Pid;
use tokio::sync::oneshot;

use super::notes::Notes;
use super::{ConnectionsSnapshot, Ended, OpenConnection};
use crate::carry::{NotCarried, StandStill, Still, stand_still};
use crate::ids::WorkerId;

/// Who hears of ends, on the thread of this room: it must not wait.
pub(crate) type EndsSink = Box<dyn FnMut(Vec<Ended>) + Send>;
/// Who hears, for each connection that no process has any more, whose it was; on the thread of this room.
pub(crate) type FreedSink = Box<dyn FnMut(Vec<WorkerId>) + Send>;

/// When something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// At once, which wakes the thread of this room for each.
    AtOnce,
    /// A few milliseconds late, with what else there is by then.
    Gathered,
}

/// Asks about connections.
#[derive(Clone)]
pub(crate) struct Handle {
    inbox: Inbox,
    notes: Notes,
}

/// What was asked, and not looked at yet. Whoever asks waits for the answer, so that they bound it.
pub(super) type Inbox = Arc<Mutex<Vec<Request>>>;

/// What is asked.
pub(super) enum Request {
    Began { worker: WorkerId, group: Pid },
    Gone(WorkerId),
    Snapshot(oneshot::Sender<io::Result<Vec<OpenConnection>>>),
    Drain { worker: WorkerId, ports: Vec<u16>, done: oneshot::Sender<()> },
    WatchEnds(EndsSink),
    WatchFreed(FreedSink, Telling),
    Hurry(bool),
    NotNoted,
    StandStill(StandStill<ConnectionsSnapshot>),
}

impl Handle {
    pub(super) fn new(inbox: Inbox, notes: Notes) -> Self {
        Self { inbox, notes }
    }

    /// A worker was launched; its first process leads this group.
    pub(crate) fn began(&self, worker: WorkerId, group: Pid) {
        self.send(Request::Began { worker, group });
    }

    /// Workers accept by themselves from now on: the front notes nothing.
    pub(crate) fn not_noted(&self) {
        self.send(Request::NotNoted);
    }

    /// A worker is gone, with all its processes.
    pub(crate) fn gone(&self, worker: WorkerId) {
        self.send(Request::Gone(worker));
    }

    /// The clients' connections that a process has now, this one included.
    ///
    /// # Errors
    /// It cannot be told now.
    pub(crate) async fn snapshot(&self) -> io::Result<Vec<OpenConnection>> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Snapshot(reply));
        answer.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }

    /// How many connections each worker has now; nothing of those that have none.
    ///
    /// # Errors
    /// It cannot be told now.
    pub(crate) async fn count_by_worker(&self) -> io::Result<BTreeMap<WorkerId, usize>> {
        let mut counts = BTreeMap::new();
        for worker in self.snapshot().await?.into_iter().filter_map(|connection| connection.worker) {
            *counts.entry(worker).or_default() += 1;
        }
        Ok(counts)
    }

    /// Returns when no process of this worker holds a client's connection any more; it gets no further one. The connections
    /// to these ports count, and to those that clusterd serves now. As long as it cannot be told, it does not return.
    pub(crate) async fn drained(&self, worker: WorkerId, mut ports: Vec<u16>) {
        ports.extend(self.notes.ports());
        ports.sort_unstable();
        ports.dedup();
        let (done, drained) = oneshot::channel();
        self.send(Request::Drain { worker, ports, done });
        if drained.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Has the sink told of every end of a noted connection from now on, a few milliseconds late at most where the kernel
    /// tells of ends.
    pub(crate) fn watch_ends(&self, sink: impl FnMut(Vec<Ended>) + Send + 'static) {
        self.send(Request::WatchEnds(Box::new(sink)));
    }

    /// Has the sink told, once for each noted connection and from now on, that no process has it any more.
    pub(crate) fn watch_freed(&self, telling: Telling, sink: impl FnMut(Vec<WorkerId>) + Send + 'static) {
        self.send(Request::WatchFreed(Box::new(sink), telling));
    }

    /// Has it looked every few milliseconds, for as long as that is wanted, which connections no process has any more: the
    /// kernel tells by itself only when nothing of a connection is left.
    pub(crate) fn hurry(&self, is_wanted: bool) {
        self.send(Request::Hurry(is_wanted));
    }

    /// Has the room stand still, for the next image of clusterd. It has told of all ends and free connections that it knows of
    /// then, so that who counts by that is to stand still next. What is told to the room from now on is not in the answer: the
    /// rest is in [`Handle::since`] and [`Notes::snapshot`] when nobody tells any more.
    ///
    /// # Errors
    /// Its thread has ended.
    pub(crate) async fn stand_still(&self) -> Result<Still<ConnectionsSnapshot>, NotCarried> {
        let (asked, mut frozen) = stand_still();
        self.send(Request::StandStill(asked));
        match frozen.state().await {
            Some(state) => Ok(Still::new(state, frozen)),
            None => {
                Err(NotCarried("who has which connection: the thread that knows it has ended".to_owned()))
            }
        }
    }

    /// What it had when it stood still, with the workers that were launched since and without those that are gone.
    pub(crate) fn since(&self, mut state: ConnectionsSnapshot) -> ConnectionsSnapshot {
        for request in &*self.inbox.lock().unwrap_or_else(PoisonError::into_inner) {
            match request {
                Request::Began { worker, group } => state.began(*worker, *group),
                Request::Gone(worker) => state.gone(*worker),
                Request::NotNoted => state.notes_all = false,
                // Who wants these asks again.
                Request::Snapshot(_)
                | Request::Drain { .. }
                | Request::WatchEnds(_)
                | Request::WatchFreed(..)
                | Request::Hurry(_)
                | Request::StandStill(_) => {}
            }
        }
        state
    }

    fn send(&self, request: Request) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        self.notes.wake();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
