//! A reload as a transaction: new workers beside the old ones, slot after slot.
//!
//! It starts and stops nothing: [`Rollout::advance`] looks at the workers and says what is next. A slot's turn:
//!
//! ```text
//! Waiting ─ there is room ─► Trying ─ ready (the first: and proved) ─► Leaving ─ the old one is gone ─► Done
//!                              │
//!                              └─ ended, or not ready in time ─► the whole has failed: the old ones stay
//! ```
//!
//! The first slot is the canary: before its turn is past Trying no other begins.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::lifecycle::Phase;
use crate::ids::Slot;

/// One instance of a worker, from its first start to its last end. Two share a slot while one replaces the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InstanceId(pub u64);

/// A worker, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Which.
    pub instance: InstanceId,
    /// In which slot.
    pub slot: Slot,
    /// Where it stands.
    pub phase: Phase,
    /// Since when it is online, if it is.
    pub since: Option<Instant>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RolloutAction {
    /// Start a worker on trial in this slot, and say so with [`Rollout::began`].
    Start(Slot),
    /// This worker is on trial no longer: whatever becomes of it does not concern the replacement.
    Trust(InstanceId),
    /// Retire this worker: its successor is ready.
    Retire(InstanceId),
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// This is to be done now.
    Now(Vec<RolloutAction>),
    /// Every slot has its new worker, and the old ones are gone.
    Done,
    /// This new worker has failed.
    Failed(InstanceId),
}

/// How many slots may have two workers at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parallel {
    /// Half of them, so that all are replaced in two drains at most, however long their clients stay; and two at least, so
    /// that one whose clients stay holds up no other.
    Auto,
    /// So many.
    AtMost(NonZeroU32),
}

impl Parallel {
    fn of(self, slots: usize) -> usize {
        match self {
            Parallel::Auto => slots.div_ceil(2).max(2),
            Parallel::AtMost(most) => usize::try_from(most.get()).unwrap_or(usize::MAX),
        }
    }
}

/// A transaction under way.
#[derive(Clone, Debug)]
pub(crate) struct Rollout {
    turns: Vec<(Slot, Turn)>,
    parallel: usize,
    prove: Duration,
}

/// Where a slot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Waiting,
    Trying(InstanceId),
    Leaving(InstanceId),
    Done,
}

impl Rollout {
    /// Replaces the workers of these slots, so many at a time. The first new one must have been online for `prove`
    /// before it is trusted.
    pub(crate) fn new(slots: impl IntoIterator<Item = Slot>, parallel: Parallel, prove: Duration) -> Self {
        let turns: Vec<_> = slots.into_iter().map(|slot| (slot, Turn::Waiting)).collect();
        let parallel = parallel.of(turns.len());
        Self { turns, parallel, prove }
    }

    /// It replaces the worker of this slot.
    pub(crate) fn includes(&self, slot: Slot) -> bool {
        self.turns.iter().any(|&(other, _)| other == slot)
    }

    /// This worker was started for the slot.
    pub(crate) fn began(&mut self, slot: Slot, instance: InstanceId) {
        if let Some((_, turn)) = self.turns.iter_mut().find(|(other, _)| *other == slot) {
            *turn = Turn::Trying(instance);
        }
    }

    /// How many slots have their new worker for good.
    pub(crate) fn replaced(&self) -> usize {
        self.turns.iter().filter(|(_, turn)| matches!(turn, Turn::Leaving(_) | Turn::Done)).count()
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.turns.len()
    }

    /// The workers that are on trial.
    pub(crate) fn on_trial(&self) -> Vec<InstanceId> {
        let trying = self.turns.iter().filter_map(|&(_, turn)| match turn {
            Turn::Trying(instance) => Some(instance),
            _ => None,
        });
        trying.collect()
    }

    /// When to look again even if nothing happens: the canary will have proved itself. It may have by now, since it was looked last.
    pub(crate) fn deadline(&self, instances: &[Standing]) -> Option<Instant> {
        let Some(&(_, Turn::Trying(canary))) = self.turns.first() else { return None };
        let since =
            instances.iter().find(|seen| seen.instance == canary && seen.phase == Phase::Online)?.since?;
        Some(since + self.prove)
    }

    /// What follows from how the workers stand.
    pub(crate) fn advance(&mut self, instances: &[Standing], now: Instant) -> Progress {
        let mut next = Vec::new();
        for index in 0..self.turns.len() {
            let (slot, turn) = self.turns[index];
            let old =
                instances.iter().filter(|seen| seen.slot == slot && Some(seen.instance) != turn.instance());
            self.turns[index].1 = match turn {
                Turn::Trying(instance) => match self.verdict(index, instance, instances, now) {
                    Verdict::Failed => return Progress::Failed(instance),
                    Verdict::Unknown => turn,
                    Verdict::Ready => {
                        next.push(RolloutAction::Trust(instance));
                        next.extend(old.map(|old| RolloutAction::Retire(old.instance)));
                        Turn::Leaving(instance)
                    }
                },
                Turn::Leaving(_) if old.clone().next().is_none() => Turn::Done,
                turn => turn,
            };
        }
        next.extend(self.starts().into_iter().map(RolloutAction::Start));
        let is_done = self.turns.iter().all(|&(_, turn)| turn == Turn::Done);
        if is_done { Progress::Done } else { Progress::Now(next) }
    }

    fn verdict(&self, index: usize, instance: InstanceId, instances: &[Standing], now: Instant) -> Verdict {
        let Some(seen) = instances.iter().find(|seen| seen.instance == instance) else {
            return Verdict::Failed;
        };
        match seen.phase {
            // One that has ended is not started again while it is on trial: what it said last is being read.
            Phase::Launching | Phase::WaitingRestart => Verdict::Unknown,
            Phase::Online if index > 0 || seen.since.is_none_or(|since| since + self.prove <= now) => {
                Verdict::Ready
            }
            Phase::Online => Verdict::Unknown,
            _ => Verdict::Failed,
        }
    }

    /// The slots whose turn it is.
    fn starts(&self) -> Vec<Slot> {
        let is_under_way = |turn: &Turn| matches!(turn, Turn::Trying(_) | Turn::Leaving(_));
        let under_way = self.turns.iter().filter(|(_, turn)| is_under_way(turn)).count();
        let room = match self.turns.first() {
            Some((_, Turn::Waiting)) => 1,
            Some((_, Turn::Trying(_))) => 0,
            _ => self.parallel.saturating_sub(under_way),
        };
        let waiting = self.turns.iter().filter(|(_, turn)| *turn == Turn::Waiting);
        waiting.map(|&(slot, _)| slot).take(room).collect()
    }
}

impl Turn {
    fn instance(self) -> Option<InstanceId> {
        match self {
            Turn::Trying(instance) | Turn::Leaving(instance) => Some(instance),
            Turn::Waiting | Turn::Done => None,
        }
    }
}

enum Verdict {
    Ready,
    Failed,
    Unknown,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const PROVE: Duration = Duration::from_secs(1);

    fn at_most(most: u32) -> Parallel {
        Parallel::AtMost(NonZeroU32::new(most).unwrap())
    }

    /// The instances that a task would have, and the time.
    struct World {
        now: Instant,
        instances: Vec<Standing>,
        rollout: Rollout,
        started: u64,
        trusted: BTreeSet<InstanceId>,
    }

    impl World {
        fn new(slots: u32, parallel: Parallel) -> Self {
            let now = Instant::now();
            let old = |slot| Standing {
                instance: InstanceId(u64::from(slot)),
                slot: Slot(slot),
                phase: Phase::Online,
                since: Some(now),
            };
            let slots = 1..=slots;
            let rollout = Rollout::new(slots.clone().map(Slot), parallel, PROVE);
            let (instances, trusted) = (slots.map(old).collect(), BTreeSet::new());
            Self { now, instances, rollout, started: 100, trusted }
        }

        /// Advances until nothing is to be done, and says how far it is.
        fn settle(&mut self) -> Progress {
            loop {
                match self.rollout.advance(&self.instances, self.now) {
                    Progress::Now(next) if !next.is_empty() => {
                        next.into_iter().for_each(|next| self.obey(next))
                    }
                    progress => return progress,
                }
            }
        }

        fn obey(&mut self, next: RolloutAction) {
            match next {
                RolloutAction::Start(slot) => {
                    self.started += 1;
                    let instance = InstanceId(self.started);
                    self.instances.push(Standing { instance, slot, phase: Phase::Launching, since: None });
                    self.rollout.began(slot, instance);
                }
                RolloutAction::Trust(instance) => assert!(self.trusted.insert(instance), "once is enough"),
                RolloutAction::Retire(instance) => self.set(instance, Phase::Draining),
            }
        }

        fn set(&mut self, instance: InstanceId, phase: Phase) {
            let now = self.now;
            let seen = self.instances.iter_mut().find(|seen| seen.instance == instance).expect("it is there");
            (seen.phase, seen.since) = (phase, (phase == Phase::Online).then_some(now));
        }

        fn with(&self, phase: Phase) -> Vec<InstanceId> {
            self.instances.iter().filter(|seen| seen.phase == phase).map(|seen| seen.instance).collect()
        }

        /// Every slot has a worker that can be given connections.
        fn is_served(&self, slots: u32) -> bool {
            let online = |slot| {
                self.instances.iter().any(|seen| seen.slot == Slot(slot) && seen.phase == Phase::Online)
            };
            (1..=slots).all(online)
        }
    }

    #[test]
    fn the_first_one_is_alone_until_it_has_proved_itself() {
        let mut world = World::new(3, at_most(3));
        assert_eq!(world.settle(), Progress::Now(vec![]));
        assert_eq!(world.with(Phase::Launching), [InstanceId(101)]);
        world.set(InstanceId(101), Phase::Online);
        world.settle();
        assert_eq!(world.with(Phase::Draining), []);
        assert!(world.trusted.is_empty());
        let proved = world.now + PROVE;
        assert_eq!(world.rollout.deadline(&world.instances), Some(proved));
        world.now = proved;
        // Time passes between a look and the question when to look again.
        assert_eq!(world.rollout.deadline(&world.instances), Some(proved), "it was not looked since");
        world.settle();
        assert_eq!(world.with(Phase::Draining), [InstanceId(1)]);
        assert_eq!(world.trusted, BTreeSet::from([InstanceId(101)]));
        assert_eq!(world.with(Phase::Launching), [InstanceId(102), InstanceId(103)]);
    }

    #[test]
    fn when_the_first_one_fails_nothing_was_touched() {
        for phase in [Phase::Errored, Phase::Stopping, Phase::Draining, Phase::Stopped] {
            let mut world = World::new(2, at_most(1));
            world.settle();
            world.set(InstanceId(101), Phase::Online);
            world.settle();
            world.set(InstanceId(101), Phase::WaitingRestart);
            assert_eq!(world.settle(), Progress::Now(vec![]), "how it has ended is not wholly known");
            world.set(InstanceId(101), phase);
            assert_eq!(world.settle(), Progress::Failed(InstanceId(101)));
            assert_eq!(world.with(Phase::Online), [InstanceId(1), InstanceId(2)]);
            assert_eq!(world.rollout.on_trial(), [InstanceId(101)]);
        }
    }

    /// Lets every new worker be ready at once, and be trusted, and lets each that these clients stay with take a whole drain.
    /// How many drains that takes, one after the other, and how many workers there were at most.
    fn drains(slots: u32, parallel: Parallel, stays: impl Fn(InstanceId) -> bool) -> (usize, usize) {
        let mut world = World::new(slots, parallel);
        let (mut drains, mut most) = (0, 0);
        loop {
            while world.settle() != Progress::Done {
                most = most.max(world.instances.len());
                let launching = world.with(Phase::Launching);
                let leaving = world.with(Phase::Draining).into_iter().find(|&instance| !stays(instance));
                let is_proving = world.rollout.deadline(&world.instances).is_some();
                match (launching.first(), leaving) {
                    (Some(&instance), _) => world.set(instance, Phase::Online),
                    (None, Some(left)) => world.instances.retain(|seen| seen.instance != left),
                    (None, None) if is_proving => world.now += PROVE,
                    (None, None) => break,
                }
            }
            if world.with(Phase::Draining).is_empty() {
                return (drains, most);
            }
            drains += 1;
            world.instances.retain(|seen| seen.phase != Phase::Draining);
        }
    }

    #[test]
    fn who_keeps_its_clients_holds_up_as_few_as_there_is_room_for() {
        let (nobody, first, all) = (0, 1, u64::MAX);
        let cases = [
            // Workers, how many at a time, up to which one clients stay; drains, workers at most.
            (1, Parallel::Auto, all, (1, 2)),
            (2, Parallel::Auto, nobody, (0, 4)),
            (2, Parallel::Auto, first, (1, 4)),
            (2, Parallel::Auto, all, (1, 4)),
            (3, Parallel::Auto, all, (2, 5)),
            (4, Parallel::Auto, first, (1, 6)),
            (4, Parallel::Auto, all, (2, 6)),
            (8, Parallel::Auto, all, (2, 12)),
            (2, at_most(1), first, (1, 3)),
            (2, at_most(1), all, (2, 3)),
            (4, at_most(1), all, (4, 5)),
            (4, at_most(100), all, (1, 8)),
        ];
        for (slots, parallel, until, expected) in cases {
            let taken = drains(slots, parallel, |instance| instance.0 <= until);
            assert_eq!(taken, expected, "{slots} workers, {parallel:?}, clients of the first {until} stay");
        }
    }

    proptest! {
        #[test]
        fn unless_it_is_limited_a_reload_takes_no_longer_than_two_drains(slots in 1..40u32, stays: u64) {
            let (drains, most) = drains(slots, Parallel::Auto, |instance| stays >> instance.0 & 1 == 1);
            prop_assert!(drains <= 2);
            prop_assert!(most <= (slots + slots.div_ceil(2).max(2)) as usize);
            if stays.count_ones() <= 1 {
                prop_assert!(drains <= 1);
            }
        }

        #[test]
        fn whatever_the_order_every_slot_is_served_and_few_are_beside(
            slots in 1..6u32,
            parallel in 1..4u32,
            choices in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let mut world = World::new(slots, at_most(parallel));
            let mut progress = world.settle();
            for choice in choices {
                let launching = world.with(Phase::Launching);
                let draining = world.with(Phase::Draining);
                let all = launching.len() + draining.len();
                if all > 0 {
                    let index = choice.index(all);
                    match launching.get(index) {
                        Some(&instance) => world.set(instance, Phase::Online),
                        None => world.instances.retain(|seen| seen.instance != draining[index - launching.len()]),
                    }
                } else {
                    world.now += PROVE;
                }
                progress = world.settle();
                prop_assert!(world.is_served(slots));
                prop_assert_eq!(world.trusted.len(), world.rollout.replaced());
                prop_assert!(world.instances.len() <= (slots + parallel) as usize);
            }
            if progress == Progress::Done {
                prop_assert!(world.instances.iter().all(|seen| seen.instance > InstanceId(100)));
            }
        }

        #[test]
        fn it_comes_to_its_end(slots in 0..6u32, parallel in 1..4u32) {
            let mut world = World::new(slots, at_most(parallel));
            for _ in 0..100 {
                if world.settle() == Progress::Done {
                    return Ok(());
                }
                world.with(Phase::Launching).into_iter().for_each(|instance| world.set(instance, Phase::Online));
                world.instances.retain(|seen| seen.phase != Phase::Draining);
                world.now += PROVE;
            }
            prop_assert!(false, "it does not end");
        }
    }
}
