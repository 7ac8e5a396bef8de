//! The free pool: idle workers in the order in which they became idle, as in Node's `round_robin_handle`.
//!
//! It looks at no worker to find the next: each is linked to the one before it and the one behind it.

use super::{Availability, Balancer, Seat};
use crate::protocol::wire::Endpoint;

/// Idle workers, the one that has been idle longest first.
///
/// A worker is in the pool at most once.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    /// By seat.
    places: Vec<Place>,
    first: Option<Seat>,
    last: Option<Seat>,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// Nowhere: it is not in the pool.
    #[default]
    Out,
    /// Between these two.
    Between { before: Option<Seat>, behind: Option<Seat> },
}

impl RoundRobin {
    fn place(&mut self, seat: Seat) -> &mut Place {
        if seat.0 >= self.places.len() {
            self.places.resize(seat.0 + 1, Place::Out);
        }
        &mut self.places[seat.0]
    }

    /// Links two neighbours, or an end of the pool to the one that stands there.
    fn link(&mut self, left: Option<Seat>, right: Option<Seat>) {
        match left {
            None => self.first = right,
            Some(seat) => {
                if let Place::Between { behind, .. } = self.place(seat) {
                    *behind = right;
                }
            }
        }
        match right {
            None => self.last = left,
            Some(seat) => {
                if let Place::Between { before, .. } = self.place(seat) {
                    *before = left;
                }
            }
        }
    }

    /// It is the last one, unless it is in the pool already.
    fn joined(&mut self, seat: Seat) {
        if let Place::Out = self.place(seat) {
            let last = self.last;
            *self.place(seat) = Place::Between { before: None, behind: None };
            self.link(last, Some(seat));
            self.link(Some(seat), None);
        }
    }

    fn left(&mut self, seat: Seat) {
        if let Place::Between { before, behind } = std::mem::take(self.place(seat)) {
            self.link(before, behind);
        }
    }
}

impl Balancer for RoundRobin {
    fn stands(&mut self, seat: Seat, availability: Availability) {
        match availability {
            Availability::Idle => self.joined(seat),
            Availability::Away | Availability::Full | Availability::Ahead => self.left(seat),
        }
    }

    fn order(&self) -> Vec<Seat> {
        let behind = |seat: &Seat| match self.places.get(seat.0)? {
            Place::Between { behind, .. } => *behind,
            Place::Out => None,
        };
        std::iter::successors(self.first, behind).collect()
    }

    /// The first one, which is the last one then.
    fn next(&mut self, _client: &Endpoint) -> Option<Seat> {
        let next = self.first?;
        self.left(next);
        self.joined(next);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENT: Endpoint = Endpoint::V4 { address: [192, 0, 2, 7], port: 4321 };

    fn pool(workers: std::ops::RangeInclusive<usize>) -> RoundRobin {
        let mut pool = RoundRobin::default();
        workers.for_each(|worker| pool.joined(Seat(worker)));
        pool
    }

    #[test]
    fn idle_workers_take_turns() {
        let mut pool = pool(1..=3);
        let turns: Vec<_> = (0..7).filter_map(|_| pool.next(&CLIENT)).map(|seat| seat.0).collect();
        assert_eq!(turns, [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn a_busy_worker_is_passed_over_and_comes_back_last() {
        let mut pool = pool(1..=3);
        let busy = pool.next(&CLIENT).unwrap();
        pool.left(busy);
        assert_eq!(pool.next(&CLIENT), Some(Seat(2)));
        pool.joined(busy);
        let turns = [(); 4].map(|()| {
            let next = pool.next(&CLIENT)?;
            pool.left(next);
            Some(next)
        });
        assert_eq!(turns, [Some(Seat(3)), Some(Seat(2)), Some(Seat(1)), None]);
    }

    proptest! {
        /// Whatever happens, the pool holds just the workers that have joined and not left, in turn.
        #[test]
        fn the_pool_holds_each_idle_worker_once(steps in prop::collection::vec((0u8..3, 0usize..5), 0..200)) {
            let mut pool = RoundRobin::default();
            let mut idle = Vec::new();
            for (step, worker) in steps {
                let seat = Seat(worker);
                match step {
                    0 => {
                        pool.joined(seat);
                        if !idle.contains(&seat) {
                            idle.push(seat);
                        }
                    }
                    1 => {
                        pool.left(seat);
                        idle.retain(|&other| other != seat);
                    }
                    _ => {
                        prop_assert_eq!(pool.next(&CLIENT), idle.first().copied());
                        if !idle.is_empty() {
                            idle.rotate_left(1);
                        }
                    }
                }
            }
        }
    }
}
