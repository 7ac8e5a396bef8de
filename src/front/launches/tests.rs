//! What becomes of a launch, told by a clock that the test sets.

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
        let mut launches = LaunchTable::new(holds, RecycleLimits::default(), Occupancy::new(false, None));
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
    let mut launches = LaunchTable::new(false, recycle, Occupancy::new(false, None));
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
fn however_many_listeners_were_stalled_before_more_can_be() {
    let mut launches = LaunchTable::new(false, RecycleLimits::default(), Occupancy::new(false, None));
    launches.attaches(WORKER);
    launches.stalls(WORKER, Instant::now());
    launches.change(WORKER, |launch| launch.stall.as_mut().unwrap().listeners = usize::MAX);
    launches.stalls(WORKER, Instant::now());
    launches.moves(WORKER);
    assert_eq!(told(&mut launches), [Notice::Stalled { worker: WORKER }]);
}

#[test]
fn a_worker_that_takes_nothing_for_too_long_is_stuck() {
    let start = Instant::now();
    let at = |seconds| start + SECOND * seconds;
    let recycle = RecycleLimits { max_connections: None, stuck_timeout: Some(SECOND * 10) };
    let mut launches = LaunchTable::new(false, recycle, Occupancy::new(false, None));
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
    let mut launches = LaunchTable::new(false, recycle, Occupancy::new(false, None));
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
