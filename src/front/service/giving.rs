//! Who gets the next connection of a service, and giving it.
//!
//! What a worker makes of it is heard in `hearing`.

use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tracing::warn;

use super::{Intake, Member, PAUSE, Service};
use crate::front::connection::Connection;
use crate::front::launches::LaunchTable;
use crate::front::links::NotGiven;
use crate::front::private::{Delivery, Undelivered};

/// How many connections move before everything else gets its turn.
pub(super) const BURST: usize = 64;

/// How often a lasting shortage is said aloud.
const COMPLAINTS: Duration = Duration::from_secs(10);

impl Service {
    /// Brings connections and idle workers together; returns how many connections moved.
    pub(super) fn distribute(&mut self, cx: &mut Context<'_>, launches: &mut LaunchTable) -> usize {
        if self.paused.is_some() {
            return 0;
        }
        let mut all_are_busy = false;
        for moved in 0..BURST {
            if !self.queue.is_empty()
                && let Some(index) = self.next_member(&mut all_are_busy, launches)
                && let Some(connection) = self.queue.pop()
            {
                self.give(index, connection, launches);
                continue;
            }
            if self.queue.is_full(self.ahead()) {
                return moved;
            }
            match self.poll_accept(cx) {
                Poll::Ready(Ok(connection)) => {
                    self.metrics.accepted.inc();
                    match self.next_member(&mut all_are_busy, launches) {
                        Some(index) => self.give(index, connection, launches),
                        None => self.queue.push(connection),
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.pause("cannot accept; clients wait in the kernel's backlog", &error);
                    return moved;
                }
                Poll::Pending => return moved,
            }
        }
        BURST
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Connection>> {
        let (Intake::Open(listeners) | Intake::Closing { listeners, .. }) = &mut self.intake else {
            return Poll::Pending;
        };
        for turn in 0..listeners.len() {
            if let ready @ Poll::Ready(_) = listeners[turn].poll_accept(cx) {
                // The next one is asked first next time, so that none keeps the others waiting.
                listeners.rotate_left(turn + 1);
                return ready;
            }
        }
        Poll::Pending
    }

    /// How many connections were given ahead. They count as waiting, for they may come back into the queue.
    pub(super) fn ahead(&self) -> usize {
        self.members.iter().map(|member| member.link.untaken().saturating_sub(1)).sum()
    }

    /// Hands over a connection of clusterd's own if one waits and the worker has a turn for it; whether it did. For
    /// clients this is as if the worker had been given one of theirs.
    pub(super) fn give_private(&mut self, index: usize) -> bool {
        let member = &mut self.members[index];
        if member.private.is_empty() || !member.link.is_idle() {
            return false;
        }
        let Some(Delivery { worker, connection, reply, .. }) = member.private.pop() else { return false };
        match member.link.hand_off(connection, Instant::now()) {
            Ok(()) => member.private.begin(reply),
            Err(NotGiven { error, .. }) => {
                let _ = reply.send(Err(Undelivered::HandOff(error.kind())));
                return false;
            }
        }
        if !self.is_available(worker) {
            self.leave_out(worker);
        }
        true
    }

    /// Gives a connection to the one that is next, or keeps it if that cannot be.
    fn give(&mut self, index: usize, connection: Connection, launches: &mut LaunchTable) {
        let member = &mut self.members[index];
        let worker = member.link.worker();
        let now = Instant::now();
        let waited = now.saturating_duration_since(connection.accepted);
        match member.link.hand_off(connection, now) {
            Ok(()) => {
                self.metrics.queue_wait.observe(waited.as_secs_f64());
                if self.is_available(worker) {
                    self.free.release(worker);
                }
            }
            Err(not_given) => self.keep(index, not_given, launches),
        }
    }

    /// Who gets the next connection: the next idle worker in turn, or else one that is given it ahead.
    fn next_member(&mut self, all_are_busy: &mut bool, launches: &mut LaunchTable) -> Option<usize> {
        self.next_idle().or_else(|| self.next_ahead(all_are_busy, launches))
    }

    /// The next idle worker in turn, by the one of its channels that was used longest ago.
    fn next_idle(&mut self) -> Option<usize> {
        let worker = self.free.take()?;
        let idle = self.members.iter().enumerate();
        idle.filter(|(_, member)| member.link.worker() == worker && member.link.is_available())
            .min_by_key(|(_, member)| member.link.last_handed())
            .map(|(index, _)| index)
    }

    /// The one to whom the fewest are on their way, and whose window has room. Before anyone is passed over, all are
    /// asked whether they are still busy, for the front may not have heard; not again while all are.
    fn next_ahead(&mut self, all_are_busy: &mut bool, launches: &mut LaunchTable) -> Option<usize> {
        let next = self.next_busy(|_| true)?;
        if self.members[next].has_room_ahead() {
            return Some(next);
        }
        if !*all_are_busy {
            self.ask_about_given_before(Instant::now(), launches);
            self.release_taken();
            if let idle @ Some(_) = self.next_idle() {
                return idle;
            }
            *all_are_busy = true;
        }
        self.next_busy(Member::has_room_ahead)
    }

    /// Of the busy ones that may be given connections ahead, and that `which` picks, the one whose turn it is.
    fn next_busy(&self, which: impl Fn(&Member) -> bool) -> Option<usize> {
        let busy = self.members.iter().enumerate();
        busy.filter(|(_, member)| member.link.may_be_given_ahead() && which(member))
            .min_by_key(|(_, member)| (member.link.untaken(), member.link.last_handed()))
            .map(|(index, _)| index)
    }

    fn keep(&mut self, index: usize, NotGiven { connection, error }: NotGiven, launches: &mut LaunchTable) {
        let member = &mut self.members[index];
        let worker = member.link.worker();
        self.queue.put_back(connection);
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => {
                self.drop_member(index, launches);
            }
            // No memory, too many descriptors in flight (ETOOMANYREFS, unix(7)), or a channel that the system has made
            // small: that passes. Meanwhile nobody is given any ahead.
            _ if member.link.is_busy() => member.window.close(),
            _ => {
                self.free.release(worker);
                self.pause("cannot hand over a connection; trying again", &error);
            }
        }
    }

    fn pause(&mut self, what: &str, error: &io::Error) {
        let now = Instant::now();
        self.paused = Some(now + PAUSE);
        if self.complain_from.is_none_or(|from| from <= now) {
            self.complain_from = Some(now + COMPLAINTS);
            warn!(service = %self.id, %error, "{what}");
        }
    }
}
