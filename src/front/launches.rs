//! What the front knows of each launch of a worker, and what it has to tell the rest about it.
//!
//! It moves no connection: services write into it what they see, and ask it for whom a new channel is there.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::handle::Notice;
use crate::front::links::{Gate, Holder};
use crate::ids::{LinkId, ServiceId, WorkerId};

/// A launch's own limit is up to this share below what was asked for, so that workers that started together are not
/// worn together.
const JITTER: u64 = 10;

/// When a launch is to be looked after.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecycleLimits {
    /// After so many connections, or up to a tenth fewer.
    pub max_connections: Option<NonZeroU64>,
    /// When it has taken nothing that it was given for so long.
    pub stuck_timeout: Option<Duration>,
}

/// The launches, and what has not been told yet.
#[derive(Debug)]
pub struct LaunchTable {
    holds: bool,
    recycle: RecycleLimits,
    launches: BTreeMap<WorkerId, Launch>,
    /// What is to be told, in this order.
    pub notices: VecDeque<Notice>,
}

#[derive(Debug, Default)]
struct Launch {
    is_released: bool,
    is_retired: bool,
    taken: u64,
    /// Its share of `max_connections`, and how many it may have taken until that is said.
    limit: Option<(u64, u64)>,
    stall: Option<Stall>,
}

/// A launch that has left a connection untaken, and has not moved since.
#[derive(Debug)]
struct Stall {
    /// On so many of its listeners.
    listeners: usize,
    /// Since when it has taken none on any other.
    since: Instant,
    /// When that will be too long.
    stuck_at: Option<Instant>,
}

impl LaunchTable {
    /// No launch yet. If the front `holds` workers, each gets clients once it is released, and otherwise once it
    /// listens.
    pub fn new(holds: bool, recycle: RecycleLimits) -> Self {
        Self { holds, recycle, launches: BTreeMap::new(), notices: VecDeque::new() }
    }

    fn launch(&mut self, worker: WorkerId) -> &mut Launch {
        let most = self.recycle.max_connections;
        self.launches.entry(worker).or_insert_with(|| {
            let limit = most.map(|most| spread(most, fastrand::u64(..)));
            Launch { limit: limit.map(|limit| (limit, limit)), ..Launch::default() }
        })
    }

    /// For whom a channel that this worker attaches now is there.
    pub fn attaches(&mut self, worker: WorkerId) -> Gate {
        let holds = self.holds;
        match self.launch(worker) {
            Launch { is_retired: true, .. } => Gate::Retired,
            Launch { is_released: false, .. } if holds => Gate::Held,
            Launch { .. } => Gate::Open,
        }
    }

    /// Whether it has a listener, or has had one, and is not gone.
    pub fn knows(&self, worker: WorkerId) -> bool {
        self.launches.contains_key(&worker)
    }

    /// The worker may be given clients. One that is gone meanwhile is not remembered.
    pub fn release(&mut self, worker: WorkerId) {
        if let Some(launch) = self.launches.get_mut(&worker) {
            launch.is_released = true;
        }
    }

    /// The worker gets no connection any more: nobody is to look after it.
    pub fn retire(&mut self, worker: WorkerId) {
        let launch = self.launch(worker);
        launch.is_retired = true;
        launch.limit = None;
        if let Some(stall) = &mut launch.stall {
            stall.stuck_at = None;
        }
    }

    /// The worker is gone. Returns how many connections it has taken.
    pub fn forget(&mut self, worker: WorkerId) -> u64 {
        self.launches.remove(&worker).map_or(0, |launch| launch.taken)
    }

    /// The worker listens.
    pub fn listens(&mut self, worker: WorkerId, service: ServiceId, ready: bool) {
        self.notices.push_back(Notice::Listening { worker, service, ready });
    }

    /// A connection waits for long in a channel.
    pub fn slow(&mut self, link: LinkId, holder: Holder) {
        self.notices.push_back(Notice::Slow { link, holder });
    }

    /// The worker has taken a client's connection.
    pub fn took(&mut self, worker: WorkerId, now: Instant) {
        let stuck_timeout = self.recycle.stuck_timeout;
        let Some(launch) = self.launches.get_mut(&worker) else { return };
        launch.taken += 1;
        if let Some(stall) = &mut launch.stall {
            stall.since = now;
            stall.stuck_at = stall.stuck_at.and(stuck_timeout).map(|timeout| now + timeout);
        }
        if let Some((share, until)) = &mut launch.limit
            && launch.taken >= *until
        {
            *until += *share;
            let connections = launch.taken;
            self.notices.push_back(Notice::ReplaceReason { worker, connections });
        }
    }

    /// A listener of the worker left a connection untaken, and gets none until it moves.
    pub fn stalls(&mut self, worker: WorkerId, now: Instant) {
        let stuck_timeout = self.recycle.stuck_timeout;
        let Some(launch) = self.launches.get_mut(&worker) else { return };
        if let Some(stall) = &mut launch.stall {
            stall.listeners += 1;
            return;
        }
        let stuck_at = stuck_timeout.filter(|_| !launch.is_retired).map(|timeout| now + timeout);
        launch.stall = Some(Stall { listeners: 1, since: now, stuck_at });
        self.notices.push_back(Notice::Stalled { worker });
    }

    /// A listener that was stalled moves again, or is closed.
    pub fn moves(&mut self, worker: WorkerId) {
        let Some(launch) = self.launches.get_mut(&worker) else { return };
        let Some(stall) = &mut launch.stall else { return };
        stall.listeners -= 1;
        if stall.listeners == 0 {
            launch.stall = None;
            self.notices.push_back(Notice::Moving { worker });
        }
    }

    /// When [`LaunchTable::tick`] is next needed.
    pub fn deadline(&self) -> Option<Instant> {
        self.recycle.stuck_timeout?;
        self.launches.values().filter_map(|launch| launch.stall.as_ref()?.stuck_at).min()
    }

    /// Tells who has been stuck for too long, and tells it again when that has lasted as long once more.
    pub fn tick(&mut self, now: Instant) {
        let Some(timeout) = self.recycle.stuck_timeout else { return };
        for (&worker, launch) in &mut self.launches {
            if let Some(stall) = &mut launch.stall
                && stall.stuck_at.is_some_and(|at| at <= now)
            {
                stall.stuck_at = Some(now + timeout);
                let time = now.saturating_duration_since(stall.since);
                self.notices.push_back(Notice::Stuck { worker, time });
            }
        }
    }
}

/// A launch's own share of `most`: by chance, from nine tenths of it to all of it.
fn spread(most: NonZeroU64, chance: u64) -> u64 {
    let most = most.get();
    most - chance % (most / JITTER + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Slot;

    const WORKER: WorkerId = WorkerId { slot: Slot(2), launch: 7 };
    const SECOND: Duration = Duration::from_secs(1);

    fn told(launches: &mut LaunchTable) -> Vec<Notice> {
        launches.notices.drain(..).collect()
    }

    #[test]
    fn a_held_worker_gets_clients_once_it_is_released_and_never_when_it_is_retired() {
        for (holds, gate) in [(false, Gate::Open), (true, Gate::Held)] {
            let mut launches = LaunchTable::new(holds, RecycleLimits::default());
            assert_eq!(launches.attaches(WORKER), gate);
            launches.release(WORKER);
            assert_eq!(launches.attaches(WORKER), Gate::Open);
            launches.retire(WORKER);
            launches.release(WORKER);
            assert_eq!(launches.attaches(WORKER), Gate::Retired);
            launches.forget(WORKER);
            launches.release(WORKER);
            assert!(!launches.knows(WORKER), "a release that comes late leaves nothing behind");
            assert_eq!(launches.attaches(WORKER), gate);
        }
    }

    #[test]
    fn a_launch_is_worn_at_its_limit_and_again_after_as_many() {
        let now = Instant::now();
        let recycle = RecycleLimits { max_connections: NonZeroU64::new(5), stuck_timeout: None };
        let mut launches = LaunchTable::new(false, recycle);
        launches.attaches(WORKER);
        let mut worn = Vec::new();
        for _ in 0..12 {
            launches.took(WORKER, now);
            worn.extend(told(&mut launches));
        }
        let at = |connections| Notice::ReplaceReason { worker: WORKER, connections };
        assert_eq!(worn, [at(5), at(10)]);
        launches.retire(WORKER);
        for _ in 0..12 {
            launches.took(WORKER, now);
        }
        assert_eq!(told(&mut launches), []);
        assert_eq!(launches.forget(WORKER), 24);
        assert_eq!(launches.forget(WORKER), 0);
    }

    #[test]
    fn a_worker_that_takes_nothing_for_too_long_is_stuck() {
        let start = Instant::now();
        let at = |seconds| start + SECOND * seconds;
        let recycle = RecycleLimits { max_connections: None, stuck_timeout: Some(SECOND * 10) };
        let mut launches = LaunchTable::new(false, recycle);
        launches.attaches(WORKER);
        launches.stalls(WORKER, at(0));
        launches.stalls(WORKER, at(1));
        assert_eq!(told(&mut launches), [Notice::Stalled { worker: WORKER }]);
        // It takes one on a listener that is not stalled.
        launches.took(WORKER, at(5));
        assert_eq!(launches.deadline(), Some(at(15)));
        launches.tick(at(14));
        assert_eq!(told(&mut launches), []);
        launches.tick(at(15));
        launches.tick(at(16));
        launches.tick(at(25));
        let stuck = |seconds| Notice::Stuck { worker: WORKER, time: SECOND * seconds };
        assert_eq!(told(&mut launches), [stuck(10), stuck(20)]);
        launches.moves(WORKER);
        assert_eq!(told(&mut launches), []);
        launches.moves(WORKER);
        assert_eq!(told(&mut launches), [Notice::Moving { worker: WORKER }]);
        assert_eq!(launches.deadline(), None);
    }

    #[test]
    fn nobody_looks_after_a_retired_worker() {
        let start = Instant::now();
        let recycle = RecycleLimits { max_connections: None, stuck_timeout: Some(SECOND) };
        let mut launches = LaunchTable::new(false, recycle);
        launches.attaches(WORKER);
        launches.stalls(WORKER, start);
        launches.retire(WORKER);
        launches.took(WORKER, start);
        assert_eq!(launches.deadline(), None);
        launches.moves(WORKER);
        launches.stalls(WORKER, start);
        assert_eq!(launches.deadline(), None);
    }

    proptest! {
        #[test]
        fn a_share_is_at_most_a_tenth_below_the_limit(most in 1u64.., chance in any::<u64>()) {
            let share = spread(NonZeroU64::new(most).expect("not zero"), chance);
            prop_assert!(share >= 1 && share <= most && most - share <= most / 10, "{share}");
        }
    }
}
