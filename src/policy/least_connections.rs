//! The worker with the fewest open connections; of several the one that has been idle longest.
//!
//! As nginx's `least_conn` and HAProxy's `leastconn`, it chooses among all that can be given a connection, idle or not: a
//! worker that was just started gets all who come until it has as many as the others. It counts nothing by itself.

use std::collections::BTreeSet;

use super::{Availability, Balancer, Seat};
use crate::ids::Slot;
use crate::protocol::wire::Endpoint;

/// Workers in the order in which they are chosen.
#[derive(Debug, Default)]
pub(crate) struct LeastConnections {
    /// By seat.
    workers: Vec<Worker>,
    order: BTreeSet<Key>,
    /// How often someone has become idle or was chosen.
    turns: u64,
}

/// Fewest first; then who is idle; then whose turn is longest ago.
type Key = (usize, bool, u64, Seat);

#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    availability: Availability,
    open: usize,
    turn: u64,
}

impl Worker {
    fn key(&self, seat: Seat) -> Option<Key> {
        let is_busy = self.availability != Availability::Idle;
        (self.availability >= Availability::Ahead).then_some((self.open, is_busy, self.turn, seat))
    }
}

impl LeastConnections {
    fn change(&mut self, seat: Seat, act: impl FnOnce(&mut Worker)) {
        if seat.0 >= self.workers.len() {
            self.workers.resize(seat.0 + 1, Worker::default());
        }
        let worker = &mut self.workers[seat.0];
        let before = worker.key(seat);
        act(worker);
        let after = worker.key(seat);
        if before != after {
            before.map(|key| self.order.remove(&key));
            after.map(|key| self.order.insert(key));
        }
    }

    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }
}

impl Balancer for LeastConnections {
    fn seated(&mut self, seat: Seat, _slot: Slot) {
        self.change(seat, |worker| *worker = Worker::default());
    }

    fn stands(&mut self, seat: Seat, availability: Availability) {
        let turn = self.turn();
        self.change(seat, |worker| {
            let becomes_idle = availability == Availability::Idle && worker.availability != availability;
            worker.turn = if becomes_idle { turn } else { worker.turn };
            worker.availability = availability;
        });
    }

    fn open(&mut self, seat: Seat, connections: usize) {
        self.change(seat, |worker| worker.open = connections);
    }

    fn order(&self) -> Vec<Seat> {
        let mut order: Vec<_> = (0..self.workers.len()).map(Seat).collect();
        order.sort_by_key(|seat| self.workers[seat.0].turn);
        order
    }

    fn next(&mut self, _client: &Endpoint) -> Option<Seat> {
        let &(.., seat) = self.order.first()?;
        let turn = self.turn();
        self.change(seat, |worker| worker.turn = turn);
        Some(seat)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::{CLIENT, Model, give, seats, steps};
    use super::*;
    use Availability::{Ahead, Away, Full, Idle};

    #[test]
    fn the_one_with_the_fewest_gets_all_until_it_has_as_many() {
        let mut balancer = LeastConnections::default();
        seats(&mut balancer, &[(3, Idle), (1, Idle), (3, Idle)]);
        let mut open = vec![3, 1, 3];
        let turns: Vec<_> = (0..5).filter_map(|_| give(&mut balancer, &mut open)).collect();
        assert_eq!(turns, [1, 1, 0, 2, 1]);
    }

    #[test]
    fn a_busy_one_with_fewer_comes_before_an_idle_one() {
        let mut balancer = LeastConnections::default();
        seats(&mut balancer, &[(2, Idle), (1, Ahead), (1, Full), (0, Away)]);
        assert_eq!(balancer.next(&CLIENT), Some(Seat(1)));
        balancer.open(Seat(1), 2);
        assert_eq!(balancer.next(&CLIENT), Some(Seat(0)), "of equal ones, the idle one");
        balancer.stands(Seat(0), Full);
        balancer.stands(Seat(1), Full);
        assert_eq!(balancer.next(&CLIENT), None);
    }

    #[test]
    fn of_equal_ones_the_one_that_has_been_idle_longest() {
        let mut balancer = LeastConnections::default();
        seats(&mut balancer, &[(1, Idle), (1, Idle), (1, Idle)]);
        balancer.stands(Seat(0), Full);
        balancer.stands(Seat(0), Idle);
        let turns = [(); 4].map(|()| balancer.next(&CLIENT).map(|seat| seat.0));
        assert_eq!(turns, [Some(1), Some(2), Some(0), Some(1)]);
    }

    #[test]
    fn who_takes_a_seat_has_no_connection() {
        let mut balancer = LeastConnections::default();
        seats(&mut balancer, &[(9, Idle), (1, Idle)]);
        balancer.stands(Seat(0), Away);
        balancer.seated(Seat(0), Slot(7));
        assert_eq!(balancer.next(&CLIENT), Some(Seat(1)), "it is away");
        balancer.stands(Seat(0), Idle);
        assert_eq!(balancer.next(&CLIENT), Some(Seat(0)));
    }

    proptest! {
        /// Whatever happens, nobody who can be given a connection has fewer than the one that is chosen.
        #[test]
        fn nobody_has_fewer(steps in steps()) {
            let mut balancer = LeastConnections::default();
            let mut model = Model::default();
            for step in steps {
                model.go(step, &mut balancer);
                let chosen = balancer.next(&CLIENT);
                let fewest = model.able().map(|(_, worker)| worker.open).min();
                prop_assert_eq!(chosen.map(|seat| model.workers[seat.0].open), fewest);
                if let Some(seat) = chosen {
                    prop_assert!(model.workers[seat.0].availability >= Ahead);
                }
            }
        }
    }
}
