//! Connections that come back: from workers that are gone, stuck, retired, or busy for too long.
//!
//! It decides neither when one is taken back nor who gets it next: all go into the queue.

use std::io;
use std::time::Instant;

use prometheus::IntCounter;
use tracing::{debug, warn};

use super::connection::Connection;
use super::intake::PAUSE;
use super::launches::LaunchTable;
use super::links::snapshot::LinkSnapshot;
use super::links::{LinkKey, Links, Member};
use super::occupancy::Occupancy;
use super::private::Undelivered;
use super::queue::Queue;
use crate::connections::notes::Notes;

/// Takes connections back for one service.
#[derive(Debug)]
pub(super) struct Reclaim {
    /// Those who are gone, and in whose channels connections still lie: there was no room to take them back.
    gone: Vec<Member>,
    /// When that is tried again.
    retry_at: Option<Instant>,
    redispatched: IntCounter,
    notes: Notes,
}

impl Reclaim {
    pub(super) fn new(redispatched: IntCounter, notes: Notes) -> Self {
        Self { gone: Vec::new(), retry_at: None, redispatched, notes }
    }

    /// Those who are gone, as they are written down.
    pub(super) fn snapshot(&self) -> Vec<LinkSnapshot> {
        self.gone.iter().map(Member::snapshot).collect()
    }

    /// This one is gone, and it is tried again at once to take back what lies in its channel.
    pub(super) fn resume(&mut self, gone: Member) {
        self.gone.push(gone);
        self.retry_at = Some(Instant::now());
    }

    /// Whether nothing is left to be taken back from those who are gone.
    pub(super) fn is_done(&self) -> bool {
        self.gone.is_empty()
    }

    /// Takes back what the worker has not taken, but for the youngest `leave`; returns how many. A channel gives back its
    /// oldest first.
    pub(super) fn take_back(
        &mut self,
        links: &mut Links,
        key: LinkKey,
        leave: usize,
        why: Undelivered,
        queue: &mut Queue,
        occupancy: &mut Occupancy,
    ) -> usize {
        let mut back = 0;
        while links.get(key).is_some_and(|member| member.link.untaken() > leave) {
            match links.change(key, |member| member.link.take_back()) {
                Some(Ok(Some(connection))) => {
                    self.came_back(links, key, connection, why, queue, occupancy);
                }
                Some(Ok(None)) | None => break,
                Some(Err(error)) => {
                    debug!(?key, %error, "cannot take back a connection yet");
                    break;
                }
            }
            back += 1;
        }
        // Those before it are known to have been taken now, and no waker announces them.
        links.wake(key);
        back
    }

    /// Takes its oldest connection from a worker that is late; `None` if it has taken it after all, or there is no room.
    pub(super) fn bypass(&mut self, links: &mut Links, key: LinkKey) -> Option<Connection> {
        let back = links.change(key, |member| {
            let back = member.link.bypass();
            if let Ok(Some(_)) = back {
                member.late.inc();
            }
            back
        });
        // Those before it are known to have been taken now, and no waker announces them.
        links.wake(key);
        match back? {
            Ok(connection) => {
                self.redispatched.inc_by(connection.is_some().into());
                connection
            }
            Err(error) => {
                debug!(?key, %error, "cannot take back a connection yet");
                None
            }
        }
    }

    /// The worker has given this connection back, and gets none for a while: what was given ahead, behind it, goes to
    /// others too.
    pub(super) fn given_back(
        &mut self,
        links: &mut Links,
        key: LinkKey,
        connection: Connection,
        why: Undelivered,
        queue: &mut Queue,
        occupancy: &mut Occupancy,
    ) {
        links.change(key, |member| member.window.close());
        self.came_back(links, key, connection, why, queue, occupancy);
        self.take_back(links, key, 0, why, queue, occupancy);
    }

    fn came_back(
        &mut self,
        links: &mut Links,
        key: LinkKey,
        connection: Connection,
        why: Undelivered,
        queue: &mut Queue,
        occupancy: &mut Occupancy,
    ) {
        let back = links.change(key, |member| (member.link.worker(), member.returned(connection, why)));
        if let Some((worker, Some(connection))) = back {
            occupancy.ended(worker, 1);
            self.put_back(connection, queue);
        }
    }

    fn put_back(&self, connection: Connection, queue: &mut Queue) {
        self.redispatched.inc();
        self.notes.taken_back(&connection.socket, connection.peer.into(), connection.accepted);
        queue.put_back(connection);
    }

    /// Takes back what lies in the channel of a member that is gone: later, if there is no room for it now. Returns how
    /// many connections were found to have been taken.
    pub(super) fn recover(
        &mut self,
        mut member: Member,
        queue: &mut Queue,
        launches: &mut LaunchTable,
    ) -> u64 {
        let outcome = loop {
            match member.link.recover() {
                Ok(Some(connection)) => {
                    if let Some(connection) = member.returned(connection, Undelivered::Gone) {
                        launches.occupancy.ended(member.link.worker(), 1);
                        self.put_back(connection, queue);
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
                launches.took(worker, Instant::now());
            }
        }
        match outcome {
            Ok(()) => {}
            Err(error) if is_scarcity(&error) => {
                debug!(%worker, %error, "cannot take back connections yet");
                self.gone.push(member);
                self.retry_at = Some(Instant::now() + PAUSE);
            }
            Err(error) => {
                let lost = member.link.untaken();
                warn!(%worker, lost, %error, "cannot take back connections; they are lost");
            }
        }
        taken
    }

    /// When [`Reclaim::tick`] is next needed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Tries again what there was no room for.
    pub(super) fn tick(&mut self, now: Instant, queue: &mut Queue, launches: &mut LaunchTable) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for member in std::mem::take(&mut self.gone) {
                self.recover(member, queue, launches);
            }
        }
    }
}

/// Whether this passes when descriptors or memory are free again.
pub(super) fn is_scarcity(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}
