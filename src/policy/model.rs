//! Workers as tests see them: what a balancer was told, counted by itself.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Availability, Balancer, Seat};
use crate::ids::Slot;
use crate::protocol::wire::Endpoint;

/// Some client.
pub(crate) const CLIENT: Endpoint = Endpoint::V4 { address: [192, 0, 2, 7], port: 4321 };

const AVAILABILITIES: [Availability; 4] =
    [Availability::Away, Availability::Full, Availability::Ahead, Availability::Idle];

/// Gives workers 1, 2, ... seats 0, 1, ..., with so many connections each.
pub(crate) fn seats(balancer: &mut dyn Balancer, workers: &[(usize, Availability)]) {
    for (seat, &(open, availability)) in workers.iter().enumerate() {
        balancer.seated(Seat(seat), Slot(u32::try_from(seat).unwrap() + 1));
        balancer.open(Seat(seat), open);
        balancer.stands(Seat(seat), availability);
    }
}

/// Gives a connection that stays open; who has got it.
pub(crate) fn give(balancer: &mut dyn Balancer, open: &mut [usize]) -> Option<usize> {
    let Seat(seat) = balancer.next(&CLIENT)?;
    open[seat] += 1;
    balancer.open(Seat(seat), open[seat]);
    Some(seat)
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Worker {
    pub(crate) slot: u32,
    pub(crate) launch: usize,
    pub(crate) availability: Availability,
    pub(crate) open: usize,
}

/// The workers of six seats.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) workers: [Worker; 6],
    launches: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Seat { slot: u32 },
    Stand(Availability),
    Open(usize),
}

/// What happens to whom.
pub(crate) fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        1 => (1_u32..5).prop_map(|slot| Step::Seat { slot }),
        6 => prop::sample::select(AVAILABILITIES.to_vec()).prop_map(Step::Stand),
        3 => (0_usize..5).prop_map(Step::Open),
    ];
    prop::collection::vec((0_usize..6, step), 0..120)
}

impl Model {
    /// Lets it happen, and tells the balancer.
    pub(crate) fn go(&mut self, (seat, step): (usize, Step), balancer: &mut dyn Balancer) {
        let worker = &mut self.workers[seat];
        match step {
            Step::Seat { slot } => {
                self.launches += 1;
                *worker = Worker { slot, launch: self.launches, ..Worker::default() };
                balancer.stands(Seat(seat), Availability::Away);
                balancer.seated(Seat(seat), Slot(slot));
            }
            Step::Stand(availability) if worker.launch > 0 => {
                worker.availability = availability;
                balancer.stands(Seat(seat), availability);
            }
            Step::Open(open) if worker.launch > 0 => {
                worker.open = open;
                balancer.open(Seat(seat), open);
            }
            Step::Stand(_) | Step::Open(_) => {}
        }
    }

    /// Those that can be given a connection.
    pub(crate) fn able(&self) -> impl Iterator<Item = (Seat, &Worker)> {
        let workers = self.workers.iter().enumerate().map(|(seat, worker)| (Seat(seat), worker));
        workers.filter(|(_, worker)| worker.availability >= Availability::Ahead)
    }

    /// The slots of those that serve.
    pub(crate) fn serving(&self) -> BTreeSet<u32> {
        let serving = self.workers.iter().filter(|worker| worker.availability > Availability::Away);
        serving.map(|worker| worker.slot).collect()
    }
}
