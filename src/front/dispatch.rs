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
use crate::connections::notes::{Note, Notes};
use crate::metrics::Metrics;
use crate::policy::{Balancer, Choice};
use crate::protocol::wire::Endpoint;

/// How many busy workers are asked whether they still are, before a connection is given ahead or waits.
const ASKED: usize = 4;

/// Brings connections and workers together.
#[derive(Debug)]
pub(super) struct Dispatch {
    balancer: Box<dyn Balancer>,
    /// Whether busy workers may have something to tell, if asked in this burst.
    may_ask: bool,
    queue_wait: Histogram,
    notes: Notes,
}

impl Dispatch {
    pub(super) fn new(choice: Choice, metrics: &Metrics, notes: &Notes) -> Self {
        Self {
            balancer: choice.balancer(),
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
        if let Some(client) = parts.queue.next_client()
            && let Some(key) = self.next(client, parts)
            && let Some(connection) = parts.queue.pop()
        {
            self.give(key, connection, parts);
            return true;
        }
        false
    }

    /// Gives a new connection to a worker, or has it wait.
    pub(super) fn offer(&mut self, connection: Connection, parts: &mut Parts<'_>) {
        match self.next(connection.peer, parts) {
            Some(key) => self.give(key, connection, parts),
            None => parts.queue.push(connection),
        }
    }

    /// Gives the connection that this worker has not taken in time to one that is available; whether that could be done.
    fn bypass(&mut self, late: LinkKey, parts: &mut Parts<'_>) -> bool {
        let oldest = parts.links.get(late).and_then(|member| member.link.oldest_untaken());
        if let Some((_, client)) = oldest
            && let Some(next) = self.next_asked(client, parts)
            && let Some(connection) = parts.reclaim.bypass(parts.links, late)
        {
            self.give(next, connection, parts);
            return true;
        }
        false
    }

    /// Lets the balancer know which workers are available.
    fn hear(&mut self, links: &mut Links) {
        links.tell(&mut *self.balancer);
    }

    /// Who gets this client's connection: an available worker, or else one that is given it ahead.
    fn next(&mut self, client: Endpoint, parts: &mut Parts<'_>) -> Option<LinkKey> {
        self.next_asked(client, parts).or_else(|| parts.links.next_ahead())
    }

    /// An available worker.
    ///
    /// Before somebody busy is passed over, it is asked whether it still is, for the kernel may not have announced that
    /// it is not. Not again in the same burst once nobody had anything to tell.
    fn next_asked(&mut self, client: Endpoint, parts: &mut Parts<'_>) -> Option<LinkKey> {
        if let available @ Some(_) = self.next_available(client, parts.links) {
            return available;
        }
        if self.may_ask {
            let mut asked = [None; ASKED];
            asked.iter_mut().zip(parts.links.passed_over()).for_each(|(asked, key)| *asked = Some(key));
            for key in asked.into_iter().flatten() {
                parts.ask(key);
                if let available @ Some(_) = self.next_available(client, parts.links) {
                    return available;
                }
            }
            self.may_ask = false;
        }
        None
    }

    /// The next worker in turn, by the one of its available links that was used longest ago.
    fn next_available(&mut self, client: Endpoint, links: &mut Links) -> Option<LinkKey> {
        self.hear(links);
        let seat = self.balancer.next(&client)?;
        links.available(seat)
    }

    fn note(&self, key: LinkKey, connection: &Connection, waited: Duration, links: &Links) {
        let Some(member) = links.get(key) else { return };
        self.notes.given(&connection.socket, |cookie| Note {
            cookie,
            worker: Some(member.link.worker()),
            client: connection.peer.into(),
            accepted: connection.accepted,
            waited,
        });
    }

    /// Gives a connection to the one that is next, or keeps it if that cannot be.
    fn give(&mut self, key: LinkKey, connection: Connection, parts: &mut Parts<'_>) {
        let now = Instant::now();
        let waited = now.saturating_duration_since(connection.accepted);
        self.note(key, &connection, waited, parts.links);
        match parts.links.hand_off(key, connection, now) {
            Ok(()) => self.queue_wait.observe(waited.as_secs_f64()),
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
