//! Connections of a service that come back: from workers that are gone, stuck, retired, or busy for too long.

use std::io;
use std::time::Instant;

use tracing::{debug, warn};

use super::{Member, PAUSE, Service};
use crate::front::connection::Connection;
use crate::front::launches::LaunchTable;
use crate::front::links::Link;
use crate::front::private::Undelivered;

impl Service {
    /// Drops the channels that `which` picks, after taking back what is in them. Returns how many connections were
    /// found to have been taken meanwhile.
    pub fn drop_links(&mut self, which: impl Fn(&Link) -> bool, launches: &mut LaunchTable) -> u64 {
        let mut taken = 0;
        while let Some(index) = self.members.iter().position(|member| which(&member.link)) {
            taken += self.drop_member(index, launches);
        }
        taken
    }

    /// Returns how many connections were found to have been taken.
    pub(super) fn drop_member(&mut self, index: usize, launches: &mut LaunchTable) -> u64 {
        let member = self.members.swap_remove(index);
        let worker = member.link.worker();
        if member.link.is_stalled() {
            member.stalled.dec();
            launches.moves(worker);
        }
        if !self.is_available(worker) {
            self.leave_out(worker);
        }
        self.count_listening();
        self.recover(member, launches)
    }

    /// Takes back what lies in the channel of a member that is gone: later, if there is no room for it now. Returns how
    /// many connections were found to have been taken.
    pub(super) fn recover(&mut self, mut member: Member, launches: &mut LaunchTable) -> u64 {
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
                launches.took(worker, Instant::now());
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

    /// Takes back what the worker has not taken, but for the youngest `leave`; returns how many.
    pub(super) fn take_back(&mut self, index: usize, leave: usize, why: Undelivered) -> usize {
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

    /// The worker is too slow for what it was given ahead: it goes to others. A channel gives back its oldest first, so
    /// the youngest is left.
    pub(super) fn take_back_ahead(&mut self, index: usize) {
        self.take_back(index, 1, Undelivered::Stalled);
    }

    /// The worker has given this connection back, and gets none for a while: what was given ahead, behind it, goes to
    /// others too.
    pub(super) fn given_back(&mut self, index: usize, connection: Connection, why: Undelivered) {
        self.members[index].window.close();
        self.came_back(index, connection, why);
        self.take_back(index, 0, why);
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

    pub(super) fn stall(&mut self, index: usize, now: Instant, launches: &mut LaunchTable) {
        let back = self.take_back(index, 0, Undelivered::Stalled);
        let link = &mut self.members[index].link;
        if back > 0 && link.untaken() == 0 {
            link.stall();
            self.stalled(index, now, launches);
        }
    }

    /// A worker has left what it was given untaken.
    pub(super) fn stalled(&mut self, index: usize, now: Instant, launches: &mut LaunchTable) {
        let member = &mut self.members[index];
        member.stalled.inc();
        member.private.refuse(Undelivered::Stalled);
        launches.stalls(member.link.worker(), now);
    }
}

/// Whether this passes when descriptors or memory are free again.
fn is_scarcity(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}
