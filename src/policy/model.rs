//! Workers as tests see them: what a balancer was told, counted by itself.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Availability, Balancer, Choice, Seat};
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

/// Another balancer of this kind, in which everybody was seated and has become idle in the order of the one; and who has
/// each seat of it.
fn seated_again(one: &dyn Balancer, model: &Model, choice: Choice) -> (Box<dyn Balancer>, Vec<Seat>) {
    let all = (0..model.workers.len()).map(Seat);
    let mut order = one.order();
    order.extend(all.filter(|seat| !one.order().contains(seat)));
    order.retain(|seat| model.workers[seat.0].launch > 0);
    let mut other = choice.balancer();
    let is_idle = |worker: &Worker| worker.availability == Availability::Idle;
    for idle in [false, true] {
        for (seat, known) in order.iter().enumerate() {
            let worker = &model.workers[known.0];
            if !idle {
                other.seated(Seat(seat), Slot(worker.slot));
                other.open(Seat(seat), worker.open);
            }
            if is_idle(worker) == idle {
                other.stands(Seat(seat), worker.availability);
            }
        }
    }
    (other, order)
}

proptest! {
    #[test]
    fn seated_again_in_order_they_are_chosen_as_before(steps in steps()) {
        for choice in [Choice::RoundRobin, Choice::LeastConnections, Choice::SourceIp] {
            let (mut one, mut model) = (choice.balancer(), Model::default());
            steps.iter().for_each(|&step| model.go(step, &mut *one));
            let (mut other, seats) = seated_again(&*one, &model, choice);
            let mut open = model.workers.map(|worker| worker.open);
            for _ in 0..12 {
                let chosen = one.next(&CLIENT);
                let again = other.next(&CLIENT);
                prop_assert_eq!(chosen, again.map(|seat| seats[seat.0]), "{:?}", choice);
                if let (Some(chosen), Some(again)) = (chosen, again) {
                    open[chosen.0] += 1;
                    one.open(chosen, open[chosen.0]);
                    other.open(again, open[chosen.0]);
                }
            }
        }
    }
}
