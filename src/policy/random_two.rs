//! Of two workers, picked by chance, the one with fewer open connections.
//!
//! As nginx's `random two least_conn` and Envoy's least request. Where several primaries, each of which sees a part of the
//! connections, serve with the same workers' machines, they do not all choose the same one. It counts nothing by itself.

use fastrand::Rng;

use super::{Availability, Balancer, Seat};
use crate::ids::Slot;
use crate::protocol::wire::Endpoint;

/// The workers that can be given a connection, in no order.
#[derive(Debug)]
pub(crate) struct RandomTwo {
    /// By seat.
    workers: Vec<Worker>,
    able: Vec<Seat>,
    chance: Rng,
}

#[derive(Clone, Copy, Debug, Default)]
struct Worker {
    availability: Availability,
    open: usize,
    /// Its place among those that can be given a connection.
    place: Option<usize>,
}

impl RandomTwo {
    /// Nobody yet, and where chance comes from.
    pub(crate) fn new(chance: Rng) -> Self {
        Self { workers: Vec::new(), able: Vec::new(), chance }
    }

    fn worker(&mut self, seat: Seat) -> &mut Worker {
        if seat.0 >= self.workers.len() {
            self.workers.resize(seat.0 + 1, Worker::default());
        }
        &mut self.workers[seat.0]
    }

    /// The last one takes the place of the one that goes.
    fn remove(&mut self, place: usize) {
        self.able.swap_remove(place);
        if let Some(&moved) = self.able.get(place) {
            self.worker(moved).place = Some(place);
        }
    }

    fn better(&self, one: Seat, other: Seat) -> Seat {
        let key = |seat: Seat| {
            let worker = &self.workers[seat.0];
            (worker.open, worker.availability != Availability::Idle)
        };
        if key(other) < key(one) { other } else { one }
    }
}

impl Balancer for RandomTwo {
    fn seated(&mut self, seat: Seat, _slot: Slot) {
        self.stands(seat, Availability::Away);
        self.open(seat, 0);
    }

    fn stands(&mut self, seat: Seat, availability: Availability) {
        let free = self.able.len();
        let worker = self.worker(seat);
        worker.availability = availability;
        match (worker.place, availability >= Availability::Ahead) {
            (None, true) => {
                worker.place = Some(free);
                self.able.push(seat);
            }
            (Some(place), false) => {
                worker.place = None;
                self.remove(place);
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    fn open(&mut self, seat: Seat, connections: usize) {
        self.worker(seat).open = connections;
    }

    fn next(&mut self, _client: &Endpoint) -> Option<Seat> {
        let count = self.able.len();
        let first = *self.able.get(self.chance.usize(..count.max(1)))?;
        if count < 2 {
            return Some(first);
        }
        // One of the others: whoever is drawn stands for itself, and the last one for the first one's place.
        let drawn = self.able[self.chance.usize(..count - 1)];
        let second = if drawn == first { *self.able.last()? } else { drawn };
        Some(self.better(first, second))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::model::{CLIENT, Model, give, seats, steps};
    use super::*;
    use Availability::{Ahead, Full, Idle};

    fn balancer() -> RandomTwo {
        RandomTwo::new(fastrand::Rng::with_seed(7))
    }

    #[test]
    fn the_one_with_the_most_is_never_chosen_while_there_are_others() {
        let mut balancer = balancer();
        seats(&mut balancer, &[(5, Idle), (1, Idle), (4, Ahead), (0, Full)]);
        let mut chosen: Vec<_> = (0..200).filter_map(|_| balancer.next(&CLIENT)).collect();
        chosen.sort_unstable();
        chosen.dedup();
        assert_eq!(chosen, [Seat(1), Seat(2)], "each of them is drawn together with the one that has more");
    }

    #[test]
    fn two_different_ones_are_drawn_each_as_often() {
        let mut balancer = balancer();
        seats(&mut balancer, &[(2, Idle), (1, Idle)]);
        assert!((0..100).all(|_| balancer.next(&CLIENT) == Some(Seat(1))), "both are looked at each time");
        let mut balancer = self::balancer();
        seats(&mut balancer, &[(0, Idle); 4]);
        let mut times = [0; 4];
        (0..4000).for_each(|_| times[balancer.next(&CLIENT).unwrap().0] += 1);
        assert!(times.iter().all(|&times| (900..1100).contains(&times)), "{times:?}");
    }

    #[test]
    fn it_is_nearly_as_even_as_with_the_fewest() {
        let mut balancer = balancer();
        seats(&mut balancer, &[(0, Idle); 8]);
        let mut open = vec![0; 8];
        (0..800).for_each(|_| assert!(give(&mut balancer, &mut open).is_some()));
        assert!(open.iter().all(|open| (97..=103).contains(open)), "{open:?}");
    }

    #[test]
    fn a_single_one_and_none() {
        let mut balancer = balancer();
        assert_eq!(balancer.next(&CLIENT), None);
        seats(&mut balancer, &[(3, Full), (9, Idle)]);
        assert_eq!(balancer.next(&CLIENT), Some(Seat(1)));
    }

    proptest! {
        #[test]
        fn whoever_is_chosen_can_be_given_a_connection(steps in steps()) {
            let mut balancer = balancer();
            let mut model = Model::default();
            for step in steps {
                model.go(step, &mut balancer);
                let chosen = balancer.next(&CLIENT).map(|seat| seat.0);
                prop_assert_eq!(chosen.is_some(), model.able().next().is_some());
                if let Some(seat) = chosen {
                    prop_assert!(model.workers[seat].availability >= Ahead);
                    let most = model.able().map(|(_, worker)| worker.open).max();
                    let is_alone_with_most =
                        model.able().filter(|(_, worker)| Some(worker.open) == most).count() == 1;
                    let is_choice = model.able().count() > 1;
                    prop_assert!(!(is_choice && is_alone_with_most && Some(model.workers[seat].open) == most));
                }
            }
        }
    }
}
