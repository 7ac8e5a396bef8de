//! Connections that wait for a worker: first come, first served. Some wait for one worker alone, and for nobody else in
//! front of them.
//!
//! It knows nobody's worker, counts nothing and closes nothing by itself, and whoever adds to it bounds it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::front::connection::Connection;
use crate::front::snapshot::ConnectionSnapshot;
use crate::policy::Seat;
use crate::protocol::wire::Endpoint;

/// A queue of one worker port.
#[derive(Debug)]
pub(super) struct Queue {
    /// Those who wait for any worker, or whose own worker was not looked up yet.
    waiting: VecDeque<Connection>,
    /// Those who wait for the worker on each seat; none, if no client has a worker of its own.
    homes: Vec<VecDeque<Connection>>,
    timeout: Duration,
}

impl Queue {
    /// An empty queue for connections each of which may wait for `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { waiting: VecDeque::new(), homes: Vec::new(), timeout }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.homes.iter().all(VecDeque::is_empty)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.homes.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Those who wait.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.waiting.iter().chain(self.homes.iter().flatten())
    }

    /// Those who wait, the one that has waited longest first. For whose worker is found out anew.
    pub(super) fn snapshot(&self) -> Vec<ConnectionSnapshot> {
        let mut all: Vec<_> = self.iter().map(ConnectionSnapshot::of).collect();
        all.sort_by_key(|connection| connection.accepted);
        all
    }

    /// Whose connection is next, of those who wait for any worker.
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
        insert(&mut self.waiting, connection);
    }

    /// Adds all who wait in another queue.
    pub(super) fn append(&mut self, other: &mut Queue) {
        while let Some(connection) = other.pop() {
            self.put_back(connection);
        }
    }

    /// Has clients wait for the worker that is `home` to each, if one is. It is asked with which seats are those for whom
    /// `longest` or more wait.
    pub(super) fn send_home(
        &mut self,
        longest: usize,
        home: impl Fn(&Endpoint, &dyn Fn(Seat) -> bool) -> Option<Seat>,
    ) {
        let mut homeless = VecDeque::new();
        for connection in self.waiting.drain(..) {
            let homes = &self.homes;
            let is_long =
                |Seat(seat)| homes.get(seat).is_some_and(|home: &VecDeque<_>| home.len() >= longest);
            match home(&connection.peer, &is_long) {
                Some(Seat(seat)) => {
                    if seat >= self.homes.len() {
                        self.homes.resize_with(seat + 1, VecDeque::new);
                    }
                    insert(&mut self.homes[seat], connection);
                }
                None => homeless.push_back(connection),
            }
        }
        self.waiting = homeless;
    }

    /// Nobody waits for one worker alone any more.
    pub(super) fn leave_homes(&mut self) {
        let mut all: Vec<_> = self.waiting.drain(..).chain(self.homes.drain(..).flatten()).collect();
        all.sort_by_key(|connection| connection.accepted);
        self.waiting = all.into();
    }

    /// Of the workers that can be given a connection, the one for which somebody has waited longest, and what is known of
    /// it.
    pub(super) fn next_home<T>(&self, able: impl Fn(Seat) -> Option<T>) -> Option<(Seat, T)> {
        let waiting = self.homes.iter().enumerate();
        let waiting = waiting.filter_map(|(seat, home)| Some((Seat(seat), home.front()?.accepted)));
        let able = waiting.filter_map(|(seat, since)| Some((since, seat, able(seat)?)));
        able.min_by_key(|&(since, seat, _)| (since, seat)).map(|(_, seat, able)| (seat, able))
    }

    /// Takes the connection that has waited longest for this worker alone.
    pub(super) fn pop_home(&mut self, home: Seat) -> Option<Connection> {
        self.homes.get_mut(home.0)?.pop_front()
    }

    /// Takes the connection that has waited longest.
    pub(super) fn pop(&mut self) -> Option<Connection> {
        if self.homes.is_empty() {
            return self.waiting.pop_front();
        }
        let all = [&mut self.waiting].into_iter().chain(&mut self.homes);
        let waiting = all.filter(|waiting| !waiting.is_empty());
        let longest = waiting.min_by_key(|waiting| waiting.front().map(|oldest| oldest.accepted));
        longest?.pop_front()
    }

    /// Takes the oldest connection if it has waited too long.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Connection> {
        if self.deadline()? <= now { self.pop() } else { None }
    }

    /// Since when the oldest connection waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let all = [&self.waiting].into_iter().chain(&self.homes);
        all.filter_map(|waiting| waiting.front()).map(|oldest| oldest.accepted).min()
    }

    /// When the oldest connection will have waited too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.oldest().map(|oldest| oldest + self.timeout)
    }
}

/// In the order in which they were accepted.
fn insert(waiting: &mut VecDeque<Connection>, connection: Connection) {
    let place = waiting.partition_point(|other| other.accepted <= connection.accepted);
    waiting.insert(place, connection);
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
    fn who_waits_for_one_worker_waits_for_nobody_else() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut queue = queue();
        (1..=6).for_each(|port| queue.push(connection(port, at(port.into()))));
        let home = |client: &Endpoint, _: &dyn Fn(Seat) -> bool| {
            Some(Seat(usize::from(client.port() % 3))).filter(|seat| seat.0 > 0)
        };
        queue.send_home(9, home);
        queue.put_back(connection(0, start));
        queue.put_back(connection(7, at(7)));
        assert_eq!((queue.len(), queue.oldest(), queue.iter().count()), (8, Some(start), 8));

        let only = |able: usize| move |Seat(seat): Seat| (seat == able).then_some(seat * 10);
        assert_eq!(queue.next_home(only(2)), Some((Seat(2), 20)));
        assert_eq!(queue.next_home(Some), Some((Seat(1), Seat(1))), "the one that waits longest");
        assert_eq!(queue.next_home(only(0)), None);
        let next = |queue: &mut Queue, seat| queue.pop_home(Seat(seat)).map(|next| next.peer.port());
        assert_eq!([(); 3].map(|()| next(&mut queue, 2)), [Some(2), Some(5), None]);
        assert_eq!(next(&mut queue, 9), None);
        queue.send_home(9, home);
        assert_eq!(queue.next_client().map(|client| client.port()), Some(0));
        assert_eq!([(); 4].map(|()| next(&mut queue, 1)), [Some(1), Some(4), Some(7), None]);

        queue.put_back(connection(5, at(5)));
        queue.send_home(9, home);
        queue.leave_homes();
        assert_eq!(queue.next_home(Some), None);
        assert_eq!(ports(&mut queue), [0, 3, 5, 6]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_line_is_told_to_be_long_as_it_grows() {
        let start = Instant::now();
        let mut queue = queue();
        (1..=7).for_each(|port| queue.push(connection(port, start)));
        queue.send_home(2, |_, is_long| (0..2).map(Seat).find(|&seat| !is_long(seat)).or(Some(Seat(2))));
        let line = |queue: &mut Queue, seat| std::iter::from_fn(|| queue.pop_home(Seat(seat))).count();
        assert_eq!([0, 1, 2].map(|seat| line(&mut queue, seat)), [2, 2, 3]);
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
