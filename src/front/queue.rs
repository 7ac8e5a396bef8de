//! Connections that wait for an idle worker: first come, first served.
//!
//! It counts nothing and closes nothing by itself, and whoever adds to it bounds it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::front::connection::Connection;
use crate::protocol::wire::Endpoint;

/// A queue of one worker port.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: VecDeque<Connection>,
    timeout: Duration,
}

impl Queue {
    /// An empty queue for connections each of which may wait for `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { waiting: VecDeque::new(), timeout }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Those who wait, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.waiting.iter()
    }

    /// Whose connection is next.
    pub(super) fn next_client(&self) -> Option<Endpoint> {
        self.waiting.front().map(|connection| connection.peer)
    }

    /// Adds a newly accepted connection; the caller has seen to it that there is room.
    pub(super) fn push(&mut self, connection: Connection) {
        self.waiting.push_back(connection);
    }

    /// Adds a connection that was taken back from a worker, in the order in which it was accepted. There is always
    /// room: beside those for whom room was kept, there are at most as many of them as there are channels.
    pub(super) fn put_back(&mut self, connection: Connection) {
        let place = self.waiting.partition_point(|waiting| waiting.accepted <= connection.accepted);
        self.waiting.insert(place, connection);
    }

    /// Adds all who wait in another queue.
    pub(super) fn append(&mut self, other: &mut Queue) {
        other.waiting.drain(..).for_each(|connection| self.put_back(connection));
    }

    /// Takes the connection that has waited longest.
    pub(super) fn pop(&mut self) -> Option<Connection> {
        self.waiting.pop_front()
    }

    /// Takes the oldest connection if it has waited too long.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Connection> {
        if self.deadline()? <= now { self.waiting.pop_front() } else { None }
    }

    /// Since when the oldest connection waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(|oldest| oldest.accepted)
    }

    /// When the oldest connection will have waited too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|oldest| oldest.accepted + self.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::arrival::Arrival;
    use crate::protocol::wire::Endpoint;

    fn connection(port: u16, accepted: Instant) -> Connection {
        let socket = crate::sys::seqpacket::pair().unwrap().0.into();
        Connection {
            socket,
            peer: Endpoint::V4 { address: [127, 0, 0, 1], port },
            arrival: Arrival::V4,
            accepted,
        }
    }

    fn ports(queue: &mut Queue) -> Vec<u16> {
        std::iter::from_fn(|| queue.pop()).map(|connection| connection.peer.port()).collect()
    }

    fn queue() -> Queue {
        Queue::new(Duration::from_secs(10))
    }

    #[test]
    fn a_connection_that_came_back_keeps_its_turn() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut queue = queue();
        queue.push(connection(2, at(2)));
        queue.push(connection(4, at(4)));
        let mut other = Queue::new(Duration::from_secs(10));
        other.push(connection(1, at(1)));
        other.push(connection(3, at(3)));
        queue.append(&mut other);
        assert!(other.is_empty());
        queue.put_back(connection(5, at(5)));
        assert_eq!(ports(&mut queue), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn only_connections_that_waited_too_long_expire() {
        let start = Instant::now();
        let mut queue = queue();
        queue.push(connection(1, start));
        queue.push(connection(2, start + Duration::from_secs(5)));
        assert_eq!(queue.deadline(), Some(start + Duration::from_secs(10)));
        assert!(queue.pop_expired(start + Duration::from_millis(9_999)).is_none());
        assert_eq!(queue.pop_expired(start + Duration::from_secs(10)).unwrap().peer.port(), 1);
        assert!(queue.pop_expired(start + Duration::from_secs(10)).is_none());
        assert_eq!(queue.len(), 1);
    }
}
