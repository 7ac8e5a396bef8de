//! A link, with what the front keeps for it: its window, clusterd's own connections to it, and its counters.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use prometheus::{IntCounter, IntGauge};

use super::link::Link;
use super::ready_set::Mark;
use super::snapshot::LinkSnapshot;
use super::tally::{Ahead, Standing};
use crate::front::connection::Connection;
use crate::front::private::{Private, Undelivered};
use crate::policy::Seat;
use crate::policy::window::Window;

/// A channel of a service.
#[derive(Debug)]
pub(crate) struct Member {
    pub(in crate::front) link: Link,
    pub(in crate::front) window: Window,
    pub(in crate::front) private: Private,
    pub(in crate::front) handed: IntCounter,
    pub(in crate::front) late: IntCounter,
    pub(in crate::front) stalled: IntGauge,
    pub(super) seat: Seat,
    /// How long it takes the connection that it was given is measured.
    pub(in crate::front) is_sample: bool,
    /// Its worker has as many open connections as it may have.
    pub(super) is_worker_full: bool,
    pub(super) mark: Arc<Mark>,
    /// How it stood when the sums were last brought up to it.
    pub(super) settled: Standing,
}

impl Member {
    /// What of it matters beyond it.
    pub(super) fn standing(&self) -> Standing {
        let link = &self.link;
        Standing {
            is_available: link.is_available() && !self.is_worker_full,
            is_listening: link.is_listening(),
            serves: link.is_listening() && !link.is_stalled(),
            is_up: link.is_up(),
            is_busy: link.is_busy(),
            is_urgent: self.is_urgent(),
            untaken: link.untaken(),
            ahead: self.ahead(),
            late: self.late(),
            last_handed: link.last_handed(),
            deadline: link.deadline().into_iter().chain(self.private.deadline()).min(),
        }
    }

    /// Whether the worker has taken something by now. Whoever looks at it next tells that.
    pub(super) fn has_taken(&mut self) -> bool {
        self.link.ask();
        self.link.can_tell()
    }

    /// Whether it waits for the worker to move, for more than to be given another one in its turn.
    fn is_urgent(&self) -> bool {
        let link = &self.link;
        let has_others = link.untaken() > 1 || !self.private.is_empty() || self.private.is_under_way();
        let is_noticed = has_others || self.is_sample || link.is_slow() || link.was_given_ahead();
        let is_plain = link.is_busy() && link.is_available_when_idle() && !is_noticed;
        link.awaits_taking() && !is_plain
    }

    /// As it is written down.
    pub(in crate::front) fn snapshot(&self) -> LinkSnapshot {
        self.link.snapshot(self.window.size(), self.private.is_under_way())
    }

    /// It stands as it was written down.
    pub(super) fn resume(&mut self, snapshot: LinkSnapshot) -> io::Result<()> {
        self.window = self.window.opened_for(snapshot.window);
        if snapshot.gives_private {
            self.private.resume();
        }
        self.link.resume(snapshot)
    }

    /// Whether it may be given a connection before it has taken those that it was given. One of clusterd's own is on its
    /// way alone, and does not wait until nobody comes any more.
    fn ahead(&self) -> Ahead {
        if !self.link.may_be_given_ahead() {
            return Ahead::Never;
        }
        let has_room = self.link.untaken() < self.window.size() && !self.is_worker_full;
        if has_room && self.private.is_empty() && !self.private.is_under_way() {
            Ahead::Room
        } else {
            Ahead::Full
        }
    }

    /// When the connection was accepted that it has not taken and that others may have. One of clusterd's own is for
    /// nobody else.
    fn late(&self) -> Option<Instant> {
        let may_go = self.link.is_late() && !self.private.is_under_way();
        self.link.oldest_untaken().filter(|_| may_go).map(|(accepted, _)| accepted)
    }

    /// A connection has come back from the worker, for this reason. One of clusterd's own is closed: it is for nobody
    /// else.
    pub(in crate::front) fn returned(
        &mut self,
        connection: Connection,
        why: Undelivered,
    ) -> Option<Connection> {
        if self.private.end(Err(why)) { None } else { Some(connection) }
    }
}
