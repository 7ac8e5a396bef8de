//! Who gets the next connection of a service, and handing it over.
//!
//! Whom to choose is the balancer's: it is asked from here and nowhere else, and hears from here, of the links alone, who
//! is available. What a worker makes of its connection is found out in `link_events`.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use prometheus::{Histogram, IntCounter};

use super::connection::Connection;
use super::links::{LinkKey, Links, NotGiven};
use super::service::Parts;
use crate::metrics::Metrics;
use crate::policy::{Balancer, Choice};
use crate::protocol::wire::Endpoint;

/// How many connections move before everything else gets its turn.
pub(super) const BURST: usize = 64;

/// How many busy workers are asked whether they still are, before a connection is given ahead or waits.
const ASKED: usize = 4;

/// Brings connections and workers together.
#[derive(Debug)]
pub(super) struct Dispatch {
    balancer: Box<dyn Balancer>,
    accepted: IntCounter,
    queue_wait: Histogram,
}

impl Dispatch {
    pub(super) fn new(choice: Choice, metrics: &Metrics) -> Self {
        let (accepted, queue_wait) = (metrics.accepted.clone(), metrics.queue_wait.clone());
        Self { balancer: choice.balancer(), accepted, queue_wait }
    }

    /// Gives connections to workers; returns how many moved.
    pub(super) fn distribute(&mut self, cx: &mut Context<'_>, parts: &mut Parts<'_>) -> usize {
        self.hear(parts.links);
        let mut may_ask = true;
        for moved in 0..BURST {
            if parts.intake.is_paused() {
                return moved;
            }
            if let Some(client) = parts.queue.next_client()
                && let Some(key) = self.next(client, &mut may_ask, parts)
                && let Some(connection) = parts.queue.pop()
            {
                self.give(key, connection, parts);
                continue;
            }
            if parts.queue.is_full(parts.links.ahead()) {
                return moved;
            }
            match parts.intake.poll_accept(cx) {
                Poll::Ready(Ok(connection)) => {
                    self.accepted.inc();
                    match self.next(connection.peer, &mut may_ask, parts) {
                        Some(key) => self.give(key, connection, parts),
                        None => parts.queue.push(connection),
                    }
                }
                Poll::Ready(Err(error)) => {
                    parts.intake.pause("cannot accept; clients wait in the kernel's backlog", &error);
                    return moved;
                }
                Poll::Pending => return moved,
            }
        }
        BURST
    }

    /// Lets the balancer know which workers are available.
    pub(super) fn hear(&mut self, links: &mut Links) {
        links.tell(&mut *self.balancer);
    }

    /// Who gets this client's connection: an available worker, or else one that is given it ahead.
    ///
    /// Before somebody busy is passed over, it is asked whether it still is, for the kernel may not have announced that
    /// it is not. Not again in the same burst once nobody had anything to tell.
    fn next(&mut self, client: Endpoint, may_ask: &mut bool, parts: &mut Parts<'_>) -> Option<LinkKey> {
        if let available @ Some(_) = self.next_available(client, parts.links) {
            return available;
        }
        if *may_ask {
            let mut asked = [None; ASKED];
            asked.iter_mut().zip(parts.links.passed_over()).for_each(|(asked, key)| *asked = Some(key));
            for key in asked.into_iter().flatten() {
                parts.ask(key);
                if let available @ Some(_) = self.next_available(client, parts.links) {
                    return available;
                }
            }
            *may_ask = false;
        }
        parts.links.next_ahead()
    }

    /// The next worker in turn, by the one of its available links that was used longest ago.
    fn next_available(&mut self, client: Endpoint, links: &mut Links) -> Option<LinkKey> {
        self.hear(links);
        let seat = self.balancer.next(&client)?;
        links.available(seat)
    }

    /// Gives a connection to the one that is next, or keeps it if that cannot be.
    fn give(&mut self, key: LinkKey, connection: Connection, parts: &mut Parts<'_>) {
        let now = Instant::now();
        let waited = now.saturating_duration_since(connection.accepted);
        match parts.links.hand_off(key, connection, now) {
            Ok(()) => self.queue_wait.observe(waited.as_secs_f64()),
            Err(NotGiven { connection, error }) => {
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
