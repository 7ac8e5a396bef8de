//! Who gets the next connection of a group, and handing it over.
//!
//! Whom to choose is the balancer's: it is asked from here and nowhere else, and hears from here, of the links alone, who
//! is available. What a worker makes of its connection is found out in `link_events`.

use std::io;
use std::time::{Duration, Instant};

use prometheus::Histogram;

use super::connection::Connection;
use super::group::Parts;
use super::links::{LinkKey, Links, NotGiven};
use super::setup::ServiceLimits;
use crate::connections::notes::{Note, Notes};
use crate::metrics::Metrics;
use crate::policy::{Balancer, Choice, Seat};
use crate::protocol::wire::Endpoint;

/// How many busy workers are asked whether they still are, before a connection is given ahead or waits.
const ASKED: usize = 4;

/// A line of clients who wait for one worker alone may be this part of the queue: nobody else is to be kept out of it by
/// them.
const LINES: usize = 4;

/// Brings connections and workers together.
#[derive(Debug)]
pub(super) struct Dispatch {
    choice: Choice,
    balancer: Box<dyn Balancer>,
    /// How many may wait for one worker alone before further clients of it go to their next choice.
    longest_line: usize,
    /// Whether busy workers may have something to tell, if asked in this burst.
    may_ask: bool,
    queue_wait: Histogram,
    notes: Notes,
}

impl Dispatch {
    pub(super) fn new(limits: &ServiceLimits, metrics: &Metrics, notes: &Notes) -> Self {
        let choice = limits.choice;
        Self {
            choice,
            balancer: choice.balancer(),
            longest_line: (limits.queue.get() / LINES).max(1),
            may_ask: true,
            queue_wait: metrics.queue_wait.clone(),
            notes: notes.clone(),
        }
    }

    /// A burst of connections begins.
    pub(super) fn begin(&mut self, links: &mut Links) {
        self.may_ask = true;
        self.hear(links);
    }

    /// Gives the connection that waits longest to a worker; whether there was one, and somebody for it.
    pub(super) fn give_next(&mut self, parts: &mut Parts<'_>) -> bool {
        if let Some((accepted, late)) = parts.links.latest()
            && parts.queue.oldest().is_none_or(|oldest| accepted < oldest)
            && self.bypass(late, parts)
        {
            return true;
        }
        let next = if self.choice.is_sticky() { self.next_home(parts) } else { self.next_waiting(parts) };
        let Some((key, connection)) = next else { return false };
        self.give(key, connection, parts);
        true
    }

    fn next_waiting(&mut self, parts: &mut Parts<'_>) -> Option<(LinkKey, Connection)> {
        let client = parts.queue.next_client()?;
        // Who has waited gets the first who is idle, whose turn it may be.
        let chosen = self.chosen_asked(client, parts);
        let key = chosen.or_else(|| self.ahead(parts))?;
        Some((key, parts.queue.pop()?))
    }

    /// Of those whose own worker can be given a connection, the one that waits longest.
    fn next_home(&mut self, parts: &mut Parts<'_>) -> Option<(LinkKey, Connection)> {
        self.hear(parts.links);
        if self.balancer.homes_changed() {
            parts.queue.leave_homes();
        }
        if let Some(client) = parts.queue.next_client()
            && self.balancer.home(&client).is_some()
        {
            parts
                .queue
                .send_home(self.longest_line, |client, is_long| self.balancer.home_unless(client, is_long));
        }
        let (home, key) = parts.queue.next_home(|seat| parts.links.able(seat))?;
        Some((key, parts.queue.pop_home(home)?))
    }

    /// Gives a new connection to a worker, or has it wait.
    pub(super) fn offer(&mut self, connection: Connection, parts: &mut Parts<'_>) {
        match self.next(connection.peer, parts) {
            Some(key) => self.give(key, connection, parts),
            None => parts.queue.push(connection),
        }
    }

    /// Gives the connection that this worker has not taken in time to the one that is chosen now; whether there is one. A
    /// client that has a worker of its own waits for that; and where connections are counted, nobody gets one who would have
    /// more than the late worker then.
    fn bypass(&mut self, late: LinkKey, parts: &mut Parts<'_>) -> bool {
        let oldest = parts.links.get(late).and_then(|member| member.link.oldest_untaken());
        if let Some((_, client)) = oldest
            && let Some(next) = self.chosen_asked(client, parts)
            && (!self.choice.counts() || parts.has_fewer(next, late))
            && let Some(connection) = parts.bypass(late)
        {
            self.give(next, connection, parts);
            return true;
        }
        false
    }

    /// The workers in the order in which they would be chosen.
    pub(super) fn order(&mut self, links: &mut Links) -> Vec<Seat> {
        self.hear(links);
        self.balancer.order()
    }

    /// Lets the balancer know which workers are available.
    fn hear(&mut self, links: &mut Links) {
        links.tell(&mut *self.balancer);
    }

    /// Who gets this client's connection: the worker that the balancer chooses, or else one that is given it ahead.
    fn next(&mut self, client: Endpoint, parts: &mut Parts<'_>) -> Option<LinkKey> {
        match self.chosen_asked(client, parts) {
            // Of many who come at once, each worker gets its share, though others are faster. Clients who keep their
            // connections would else all be with the first worker that had a CPU.
            Some(idle) if self.choice.knows_idle_only() => {
                parts.links.in_turn_before(idle, Instant::now()).or(Some(idle))
            }
            None => self.ahead(parts),
            chosen => chosen,
        }
    }

    /// Who is given one ahead, if nobody is idle. A policy that knows more than that has chosen among those, too.
    fn ahead(&self, parts: &Parts<'_>) -> Option<LinkKey> {
        if self.choice.knows_idle_only() { parts.links.next_ahead() } else { None }
    }

    /// The link of the worker that the balancer chooses.
    ///
    /// Before somebody busy is passed over, it is asked whether it still is, for the kernel may not have announced that
    /// it is not. Not again in the same burst once nobody had anything to tell.
    fn chosen_asked(&mut self, client: Endpoint, parts: &mut Parts<'_>) -> Option<LinkKey> {
        if let chosen @ Some(_) = self.chosen(client, parts.links) {
            return chosen;
        }
        if self.may_ask && !parts.links.hears_at_once() {
            // Nobody has said what became of what was given. Most often, who was given one longest ago has taken it.
            let first = parts.links.longest_busy();
            first.into_iter().for_each(|key| parts.ask(key));
            if let chosen @ Some(_) = self.chosen(client, parts.links) {
                return chosen;
            }
            parts.ask_all();
            if let chosen @ Some(_) = self.chosen(client, parts.links) {
                return chosen;
            }
        }
        if self.may_ask {
            for key in self.passed_over(client, parts.links).into_iter().flatten() {
                parts.ask(key);
                if let chosen @ Some(_) = self.chosen(client, parts.links) {
                    return chosen;
                }
            }
            self.may_ask = false;
        }
        None
    }

    /// The link of the worker that the balancer chooses.
    fn chosen(&mut self, client: Endpoint, links: &mut Links) -> Option<LinkKey> {
        self.hear(links);
        let seat = self.balancer.next(&client)?;
        links.able(seat)
    }

    /// Those that are too busy to be given this client's connection, as far as is known.
    fn passed_over(&self, client: Endpoint, links: &Links) -> [Option<LinkKey>; ASKED] {
        let mut passed = [None; ASKED];
        match self.balancer.home(&client) {
            Some(home) => passed.iter_mut().zip(links.of_seat(home)).for_each(|(one, &key)| *one = Some(key)),
            None => passed.iter_mut().zip(links.passed_over()).for_each(|(one, key)| *one = Some(key)),
        }
        passed
    }

    fn note(&self, key: LinkKey, connection: &Connection, waited: Duration, links: &Links) {
        let Some(member) = links.get(key) else { return };
        let worker = Some(member.link.worker());
        let (client, accepted) = (connection.peer.into(), connection.accepted);
        self.notes.given(&connection.socket, |cookie| Note::new(cookie, worker, client, accepted, waited));
    }

    /// Gives a connection to the one that is next, or keeps it if that cannot be.
    fn give(&mut self, key: LinkKey, connection: Connection, parts: &mut Parts<'_>) {
        let now = Instant::now();
        let waited = now.saturating_duration_since(connection.accepted);
        self.note(key, &connection, waited, parts.links);
        match parts.links.hand_off(key, connection, now) {
            Ok(()) => {
                self.queue_wait.observe(waited.as_secs_f64());
                parts.occupy(key);
            }
            Err(NotGiven { connection, error }) => {
                self.notes.taken_back(&connection.socket, connection.peer.into(), connection.accepted);
                parts.queue.put_back(connection);
                not_given(key, &error, parts);
            }
        }
    }
}

fn not_given(key: LinkKey, error: &io::Error, parts: &mut Parts<'_>) {
    let is_busy = parts.links.get(key).is_some_and(|member| member.link.is_busy());
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => {
            parts.drop_link(key);
        }
        // No memory, too many descriptors in flight (ETOOMANYREFS, unix(7)), or a channel that the system has made
        // small: that passes. Meanwhile nobody is given any ahead.
        _ if is_busy => {
            parts.links.change(key, |member| member.window.close());
        }
        _ => parts.intake.pause("cannot hand over a connection; trying again", error),
    }
}
