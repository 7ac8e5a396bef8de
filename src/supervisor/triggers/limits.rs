//! Has workers replaced that use too much memory (`--max-memory`) or have run for too long (`--max-age`).
//!
//! It looks and asks; how a worker is replaced without a lost request is the supervisor's affair. What the kernel holds
//! a worker to is in [`exec_context`](crate::supervisor::exec_context), how many connections it may take in the front.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::ids::{Slot, WorkerId};
use crate::supervisor::events::{ReplaceReason, whole_millis};
use crate::supervisor::lifecycle::Phase;
use crate::supervisor::{Handle, Overview, process_table};

/// How often memory is looked at, and how often is asked again for what was not done.
const LOOK: Duration = Duration::from_secs(1);
/// A worker's own greatest age is less than the one for all by up to this part, so that workers which started together
/// are not replaced together.
const SPREAD: f64 = 0.1;
/// A worker that uses too much memory so soon after it came online does not leak: it needs more.
const YOUNG: Duration = Duration::from_secs(5);
/// The longest that such a worker is left alone.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What a worker may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The memory of its process group, in bytes.
    pub memory: Option<u64>,
    /// The time since its start.
    pub age: Option<Duration>,
}

impl Bounds {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Bounds::default()
    }
}

/// Has workers replaced that are beyond these bounds, for as long as there is a supervisor.
pub(crate) async fn hold(supervisor: Handle, bounds: Bounds) {
    let mut status = supervisor.status();
    let mut launches = Launches::default();
    let mut looked = Instant::now();
    loop {
        launches.note(&status.borrow_and_update(), Instant::now(), fastrand::f64);
        tokio::select! {
            changed = status.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = tokio::time::sleep_until(launches.next_look(looked, &bounds).into()) => looked = Instant::now(),
        }
        for (worker, why) in look(&mut launches, &bounds).await {
            supervisor.replace(worker, why).await;
        }
    }
}

async fn look(launches: &mut Launches, bounds: &Bounds) -> Vec<(WorkerId, ReplaceReason)> {
    let mut due = Vec::new();
    if let Some(limit) = bounds.memory {
        let (workers, groups): (Vec<_>, Vec<_>) = launches.online().unzip();
        let memory = process_table::memory_if_above(limit, groups).await;
        due.extend(launches.above_memory(limit, workers.into_iter().zip(memory), Instant::now()));
    }
    if let Some(limit) = bounds.age {
        due.extend(launches.above_age(limit, Instant::now()));
    }
    due
}

/// The launches that run.
#[derive(Debug, Default)]
struct Launches {
    running: BTreeMap<WorkerId, Launch>,
    /// How many launches in a row have used too much memory soon after their start.
    greedy: BTreeMap<Slot, u32>,
}

#[derive(Debug)]
struct Launch {
    /// Its process group while it is online, and since when it is.
    online: Option<(Pid, Instant)>,
    since: Instant,
    /// From 0 to 1.
    chance: f64,
    /// It has been seen with too much memory.
    is_greedy: bool,
    /// How long it is left alone even so.
    delay: Duration,
}

impl Launch {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    fn greatest_age(&self, limit: Duration) -> Duration {
        limit.mul_f64(1.0 - SPREAD * self.chance)
    }
}

impl Launches {
    /// Notes who has come and who is gone.
    fn note(&mut self, app: &Overview, now: Instant, mut chance: impl FnMut() -> f64) {
        let mut before = std::mem::take(&mut self.running);
        for status in &app.workers {
            let Some((worker, group)) = status.running else { continue };
            let mut launch = before.remove(&worker).unwrap_or_else(|| Launch {
                online: None,
                since: now,
                chance: chance(),
                is_greedy: false,
                delay: delay(self.greedy.get(&worker.slot).copied().unwrap_or_default()),
            });
            let since = launch.online.map_or(now, |(_, since)| since);
            launch.online = (status.phase == Phase::Online).then_some((group, since));
            self.running.insert(worker, launch);
        }
        self.greedy.retain(|slot, _| slot.0 <= app.wanted);
    }

    fn online(&self) -> impl Iterator<Item = (WorkerId, Pid)> {
        self.running.iter().filter_map(|(worker, launch)| Some((*worker, launch.online?.0)))
    }

    /// Who uses more memory than it may; `memory` is what each worker uses.
    fn above_memory(
        &mut self,
        limit: u64,
        memory: impl Iterator<Item = (WorkerId, u64)>,
        now: Instant,
    ) -> Vec<(WorkerId, ReplaceReason)> {
        let mut due = Vec::new();
        for (worker, bytes) in memory.filter(|(_, bytes)| *bytes > limit) {
            let Some(launch) = self.running.get_mut(&worker) else { continue };
            let Some((_, since)) = launch.online else { continue };
            let served = now.saturating_duration_since(since);
            if !std::mem::replace(&mut launch.is_greedy, true) {
                let greedy = self.greedy.entry(worker.slot).or_default();
                *greedy = if served < YOUNG { greedy.saturating_add(1) } else { 0 };
                say_if_too_low(worker, bytes, served, *greedy);
            }
            if served >= launch.delay {
                due.push((worker, ReplaceReason::Memory(bytes)));
            }
        }
        due
    }

    /// Who has run for longer than it may.
    fn above_age(&self, limit: Duration, now: Instant) -> Vec<(WorkerId, ReplaceReason)> {
        let online = self.running.iter().filter(|(_, launch)| launch.online.is_some());
        let old = online.filter(|(_, launch)| launch.age(now) >= launch.greatest_age(limit));
        old.map(|(worker, launch)| (*worker, ReplaceReason::Age(whole_millis(launch.age(now))))).collect()
    }

    /// When to look after a look at `looked`. Ages need none before the first of them is reached.
    fn next_look(&self, looked: Instant, bounds: &Bounds) -> Instant {
        let soon = looked + LOOK;
        match bounds {
            Bounds { memory: Some(_), .. } | Bounds { age: None, .. } => soon,
            Bounds { memory: None, age: Some(limit) } => {
                let online = self.running.values().filter(|launch| launch.online.is_some());
                let first = online.map(|launch| launch.since + launch.greatest_age(*limit)).min();
                // Nobody is online: a change of that is a reason to look by itself.
                first.map_or(looked + *limit, |first| first.max(soon))
            }
        }
    }
}

/// How long a launch is left alone after so many in its place that used too much memory as soon as they had started.
/// To replace each at once would do nothing but start processes.
fn delay(greedy: u32) -> Duration {
    match greedy {
        0 => Duration::ZERO,
        _ => LOOK.saturating_mul(1 << greedy.min(16)).min(LONGEST_DELAY),
    }
}

fn say_if_too_low(worker: WorkerId, bytes: u64, served: Duration, greedy: u32) {
    if greedy > 1 {
        let served = humantime::format_duration(whole_millis(served));
        tracing::warn!(
            %worker, bytes,
            "worker exceeded --max-memory {served} after it came online, like the one before it; it probably needs more, and is replaced less often"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Status;

    const LIMIT: u64 = 100;

    fn worker(slot: u32, launch: u64) -> WorkerId {
        WorkerId { slot: Slot(slot), launch }
    }

    fn pid(launch: u64) -> Pid {
        Pid::from_raw(i32::try_from(launch + 1000).expect("small")).expect("not zero")
    }

    fn app(workers: &[(WorkerId, Phase)]) -> Overview {
        let status = |&(worker, phase): &(WorkerId, Phase)| Status {
            running: Some((worker, pid(worker.launch))),
            phase,
            ..Status::empty(worker.slot, 0)
        };
        Overview { wanted: 2, workers: workers.iter().map(status).collect(), ..Overview::default() }
    }

    /// These launches, online since `now`.
    fn launches(workers: &[WorkerId], now: Instant, chance: f64) -> Launches {
        let mut launches = Launches::default();
        let online: Vec<_> = workers.iter().map(|worker| (*worker, Phase::Online)).collect();
        launches.note(&app(&online), now, || chance);
        launches
    }

    #[test]
    fn who_is_online_is_looked_at() {
        let mut launches = launches(&[worker(1, 1)], Instant::now(), 0.0);
        let workers = [
            (worker(1, 1), Phase::Draining),
            (worker(1, 3), Phase::Online),
            (worker(2, 2), Phase::Launching),
        ];
        launches.note(&app(&workers), Instant::now(), || 0.0);
        assert_eq!(launches.online().collect::<Vec<_>>(), [(worker(1, 3), pid(3))]);
    }

    #[test]
    fn a_launch_has_its_own_greatest_age_for_good() {
        let (start, limit) = (Instant::now(), Duration::from_secs(1000));
        for (chance, lives) in [(0.0, 1000), (0.5, 950), (1.0, 900)] {
            let mut launches = launches(&[worker(1, 1)], start, chance);
            let online = app(&[(worker(1, 1), Phase::Online)]);
            launches.note(&online, start + Duration::from_secs(5), || unreachable!("it is known"));
            let end = start + Duration::from_secs(lives);
            assert_eq!(launches.next_look(start, &Bounds { age: Some(limit), memory: None }), end);
            assert_eq!(launches.above_age(limit, end - Duration::from_millis(1)), []);
            let expected = [(worker(1, 1), ReplaceReason::Age(Duration::from_secs(lives)))];
            assert_eq!(launches.above_age(limit, end), expected);
        }
    }

    #[test]
    fn a_worker_that_starts_is_not_replaced_for_its_age_but_ages() {
        let (start, limit) = (Instant::now(), Duration::from_secs(10));
        let mut launches = Launches::default();
        launches.note(&app(&[(worker(1, 1), Phase::Launching)]), start, || 0.0);
        assert_eq!(launches.above_age(limit, start + limit), []);
        launches.note(&app(&[(worker(1, 1), Phase::Online)]), start + limit, || 0.0);
        assert_eq!(launches.above_age(limit, start + limit).len(), 1);
    }

    #[test]
    fn what_was_not_done_is_asked_for_again_after_a_second() {
        let (start, limit) = (Instant::now(), Duration::from_secs(10));
        let launches = launches(&[worker(1, 1)], start, 0.0);
        let late = start + limit * 2;
        assert_eq!(launches.next_look(late, &Bounds { age: Some(limit), memory: None }), late + LOOK);
        assert_eq!(launches.next_look(start, &Bounds { age: Some(limit), memory: Some(1) }), start + LOOK);
    }

    #[test]
    fn more_memory_than_the_limit_is_too_much() {
        let start = Instant::now();
        let mut launches = launches(&[worker(1, 1), worker(2, 2)], start, 0.0);
        let memory = [(worker(1, 1), LIMIT), (worker(2, 2), LIMIT + 1), (worker(3, 3), LIMIT + 2)];
        let due = launches.above_memory(LIMIT, memory.into_iter(), start);
        assert_eq!(due, [(worker(2, 2), ReplaceReason::Memory(LIMIT + 1))]);
    }

    /// The seconds after their start at which successive launches are replaced that use too much from `after` on.
    fn replaced_at(after: u64, count: u64) -> Vec<u64> {
        let mut now = Instant::now();
        let mut launches = Launches::default();
        let mut seconds = Vec::new();
        for launch in 1..=count {
            launches.note(&app(&[(worker(1, launch), Phase::Online)]), now, || 0.0);
            let mut lived = 0;
            loop {
                lived += 1;
                now += LOOK;
                let bytes = if lived >= after { LIMIT + 1 } else { 0 };
                if !launches.above_memory(LIMIT, [(worker(1, launch), bytes)].into_iter(), now).is_empty() {
                    break;
                }
            }
            seconds.push(lived);
        }
        seconds
    }

    #[test]
    fn a_leak_is_replaced_at_once_and_a_limit_that_is_too_low_ever_less_often() {
        assert_eq!(replaced_at(3600, 5), [3600; 5]);
        assert_eq!(replaced_at(1, 11), [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
    }

    #[test]
    fn a_launch_that_lives_well_ends_the_delay() {
        let start = Instant::now();
        let mut launches = launches(&[worker(1, 1)], start, 0.0);
        launches.greedy.insert(Slot(1), 4);
        let memory = [(worker(1, 1), LIMIT + 1)];
        let late = start + YOUNG;
        assert_eq!(launches.above_memory(LIMIT, memory.into_iter(), late).len(), 1);
        launches.note(&app(&[(worker(1, 2), Phase::Online)]), late, || 0.0);
        assert_eq!(launches.running[&worker(1, 2)].delay, Duration::ZERO);
    }
}
