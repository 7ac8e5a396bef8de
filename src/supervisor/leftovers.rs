//! What launches that have ended left behind: processes that are in none of the workers' groups any more, as those of a
//! server that turned itself into a daemon. They are asked to end, and killed when their time is over.
//!
//! How they are found is [`Processes`](super::processes::Processes)' affair, and when it is looked the task's.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::sys::mark::Mark;

/// How long the kernel may take to carry out SIGKILL before nobody waits for it any more.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is looked: they need not be children of this process, so nothing tells when the last one ends.
const PAUSE: Duration = Duration::from_millis(50);

/// What is left of launches.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    launches: Vec<Leftover>,
    /// When the next look is due, if any.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Leftover {
    mark: Mark,
    stop_signal: Signal,
    asked: HashSet<Pid>,
    kill_at: Instant,
}

/// What to do about one launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToSignal {
    /// What its processes are known by.
    pub(super) mark: Mark,
    /// The processes.
    pub(super) pids: Vec<Pid>,
    /// What they get.
    pub(super) signal: Signal,
}

impl Leftovers {
    /// A launch has ended `now`; what it left behind gets the signal, and KILL at `kill_at`.
    pub(super) fn add(&mut self, mark: Mark, stop_signal: Signal, kill_at: Instant, now: Instant) {
        self.launches.push(Leftover { mark, stop_signal, asked: HashSet::new(), kill_at });
        self.due = Some(now);
    }

    /// Whether nothing is left, as far as it is known.
    pub(super) fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }

    /// Whether something with this mark is left, as far as it is known.
    pub(super) fn has(&self, mark: Mark) -> bool {
        self.launches.iter().any(|leftover| leftover.mark == mark)
    }

    /// When the next look is due, if any.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// They have no longer than until then.
    pub(super) fn hurry(&mut self, kill_at: Instant) {
        for leftover in &mut self.launches {
            leftover.kill_at = leftover.kill_at.min(kill_at);
        }
    }

    /// What follows from these processes that are left now.
    pub(super) fn look(&mut self, left: &[(Pid, Option<Mark>)], now: Instant) -> Vec<ToSignal> {
        let mut all = Vec::new();
        self.launches.retain_mut(|leftover| {
            let own = left.iter().filter(|(_, mark)| *mark == Some(leftover.mark));
            let pids: Vec<Pid> = own.map(|&(pid, _)| pid).collect();
            // What does not die of KILL by then is in an uninterruptible system call.
            let stays = !pids.is_empty() && now < leftover.kill_at + KILL_TIMEOUT;
            all.extend(leftover.signal(pids, now));
            stays
        });
        self.due = (!self.launches.is_empty()).then(|| now + PAUSE);
        all
    }
}

impl Leftover {
    fn signal(&mut self, left: Vec<Pid>, now: Instant) -> Option<ToSignal> {
        let (signal, pids) = match now < self.kill_at {
            true => (self.stop_signal, left.into_iter().filter(|&pid| self.asked.insert(pid)).collect()),
            false => (Signal::KILL, left),
        };
        (!pids.is_empty()).then_some(ToSignal { mark: self.mark, pids, signal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mark::Family;

    const GRACE: Duration = Duration::from_secs(1);

    fn family() -> Family {
        Family::of_number(1)
    }

    fn pids(numbers: &[i32]) -> Vec<Pid> {
        numbers.iter().filter_map(|&number| Pid::from_raw(number)).collect()
    }

    /// These processes of launch 7 are left, and others.
    fn left(numbers: &[i32]) -> Vec<(Pid, Option<Mark>)> {
        let others = [(Pid::INIT, None), (pids(&[2])[0], Some(family().member(8)))];
        let own = pids(numbers).into_iter().map(|pid| (pid, Some(family().member(7))));
        others.into_iter().chain(own).collect()
    }

    fn signals(signal: Signal, numbers: &[i32]) -> Vec<ToSignal> {
        vec![ToSignal { mark: family().member(7), pids: pids(numbers), signal }]
    }

    fn of_launch_7(now: Instant) -> Leftovers {
        let mut leftovers = Leftovers::default();
        leftovers.add(family().member(7), Signal::TERM, now + GRACE, now);
        leftovers
    }

    #[test]
    fn a_launch_that_left_nothing_is_forgotten() {
        let now = Instant::now();
        let mut leftovers = of_launch_7(now);
        assert_eq!(leftovers.due(), Some(now), "it is looked at once");
        assert_eq!(leftovers.look(&left(&[]), now), []);
        assert!(leftovers.is_empty());
        assert_eq!(leftovers.due(), None);
    }

    #[test]
    fn each_process_is_asked_once_and_killed_when_its_time_is_over() {
        let now = Instant::now();
        let mut leftovers = of_launch_7(now);
        let mut look = |numbers: &[i32], after| leftovers.look(&left(numbers), now + after);
        assert_eq!(look(&[10, 11], Duration::ZERO), signals(Signal::TERM, &[10, 11]));
        assert_eq!(look(&[10, 11, 12], GRACE / 2), signals(Signal::TERM, &[12]));
        assert_eq!(look(&[10], GRACE / 2), []);
        assert_eq!(look(&[10, 13], GRACE), signals(Signal::KILL, &[10, 13]));
        assert_eq!(look(&[], GRACE), []);
        assert!(leftovers.is_empty());
    }

    #[test]
    fn what_cannot_be_killed_is_not_waited_for() {
        let now = Instant::now();
        let mut leftovers = of_launch_7(now);
        leftovers.look(&left(&[10]), now + GRACE + KILL_TIMEOUT);
        assert!(leftovers.is_empty());
    }

    #[test]
    fn a_hurry_only_shortens_their_time() {
        let now = Instant::now();
        let mut leftovers = of_launch_7(now);
        leftovers.hurry(now + GRACE * 2);
        assert_eq!(leftovers.look(&left(&[10]), now + GRACE), signals(Signal::KILL, &[10]));
        let mut leftovers = of_launch_7(now);
        leftovers.hurry(now);
        assert_eq!(leftovers.look(&left(&[10]), now), signals(Signal::KILL, &[10]));
    }
}
