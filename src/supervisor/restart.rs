//! Whether a worker whose run has ended is started again, and when.
//!
//! A pure rule, as PM2 has it (`min_uptime`, `max_restarts`, `stop_exit_codes`, `exp_backoff_restart_delay`). It
//! knows no processes and takes its chance from the caller. An end with code 0 is no better than another: a server
//! that leaves is missed as much as one that crashed.

use std::time::Duration;

use super::ends::{End, Ended};

/// The first delay of a streak of bad runs, where nothing else is said.
pub(crate) const SHORTEST: Duration = Duration::from_millis(100);
/// Delays double up to this one.
pub(crate) const LONGEST: Duration = Duration::from_secs(15);
/// Delays are spread by this part of themselves in both directions, so that workers which fail together do not
/// come back together.
pub(crate) const SPREAD: f64 = 0.2;

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Whether anything is started again.
    pub autorestart: bool,
    /// A worker that ran for this long ran well.
    pub min_uptime: Duration,
    /// After so many bad runs in a row it is started again; after one more it is not.
    pub max_restarts: u32,
    /// Ends with these codes are meant.
    pub stop_exit_codes: Vec<u8>,
    /// The least time between an end and the next start.
    pub restart_delay: Duration,
    /// The first delay of a streak of bad runs.
    pub backoff: Duration,
}

impl Default for Policy {
    /// The defaults of the settings.
    fn default() -> Self {
        let min_uptime = Duration::from_secs(1);
        Self {
            autorestart: true,
            min_uptime,
            max_restarts: 16,
            stop_exit_codes: Vec::new(),
            restart_delay: Duration::ZERO,
            backoff: SHORTEST,
        }
    }
}

/// What a run of a worker is worth, by the runs before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// The worker is to prove itself beside the one that it would replace: it has this one chance.
    Trial,
    /// One in a row of runs.
    Regular {
        /// How many bad ones there were just before it.
        failures: u32,
    },
}

impl Run {
    /// A run before which nothing has failed.
    pub(crate) const FRESH: Run = Run::Regular { failures: 0 };

    /// The run, now that its worker has proved itself.
    pub(crate) fn proved(self) -> Run {
        match self {
            Run::Trial => Run::FRESH,
            regular @ Run::Regular { .. } => regular,
        }
    }
}

/// How a run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Went {
    /// How it ended.
    pub end: End,
    /// How long it took.
    pub ran: Duration,
    /// The worker had been ready.
    pub was_online: bool,
    /// It had taken a connection.
    pub has_served: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    /// Another run, after a while.
    Again {
        /// What it is worth.
        run: Run,
        /// How long to wait.
        after: Duration,
    },
    /// No other: this end was meant.
    Stay,
    /// No other: it has failed too often.
    GiveUp,
}

/// What follows a run. It went well if the worker was ready and either ran for a while or served somebody; after
/// that it is started again at once. Of one that ends just after it has listened it may be known that it has served,
/// and not that it was ready. `chance` is a random number from 0 to 1.
pub(crate) fn next(policy: &Policy, run: Run, went: Went, chance: f64) -> Next {
    let Run::Regular { failures } = run else {
        return Next::GiveUp;
    };
    let is_meant = match went.end {
        End::Ended(Ended::Code(code)) => policy.stop_exit_codes.iter().any(|&meant| i32::from(meant) == code),
        _ => false,
    };
    if is_meant || !policy.autorestart {
        return Next::Stay;
    }
    let has_served = went.has_served && went.end != End::Unready;
    if has_served || (went.was_online && went.ran >= policy.min_uptime) {
        return Next::Again { run: Run::FRESH, after: policy.restart_delay };
    }
    if failures >= policy.max_restarts {
        return Next::GiveUp;
    }
    let after = delay(policy.backoff, failures, chance).max(policy.restart_delay);
    Next::Again { run: Run::Regular { failures: failures.saturating_add(1) }, after }
}

fn delay(first: Duration, failures: u32, chance: f64) -> Duration {
    let delay = first.saturating_mul(1 << failures.min(16)).min(LONGEST.max(first));
    let spread = 1.0 + SPREAD * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
    delay.mul_f64(spread)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CRASH: Went = Went {
        end: End::Ended(Ended::Code(1)),
        ran: Duration::from_millis(20),
        was_online: false,
        has_served: false,
    };

    #[test]
    fn delays_double_up_to_the_longest_until_it_is_given_up() {
        let policy = Policy { max_restarts: 10, ..Policy::default() };
        let (mut run, mut delays) = (Run::FRESH, Vec::new());
        while let Next::Again { run: next, after } = next(&policy, run, CRASH, 0.5) {
            run = next;
            delays.push(after.as_millis());
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
    }

    #[test]
    fn delays_are_those_that_were_asked_for() {
        let delays = |restart_delay: u64, backoff: u64| -> Vec<u128> {
            let (restart_delay, backoff) =
                (Duration::from_millis(restart_delay), Duration::from_millis(backoff));
            let policy = Policy { max_restarts: 4, restart_delay, backoff, ..Policy::default() };
            let good = Went { was_online: true, ran: Duration::from_secs(5), ..CRASH };
            let mut delays = Vec::new();
            let mut note = |next: Next| match next {
                Next::Again { run, after } => {
                    delays.push(after.as_millis());
                    Some(run)
                }
                _ => None,
            };
            let mut run = note(next(&policy, Run::FRESH, good, 0.5));
            while let Some(before) = run {
                run = note(next(&policy, before, CRASH, 0.5));
            }
            delays
        };
        assert_eq!(delays(0, 100), [0, 100, 200, 400, 800]);
        assert_eq!(delays(3000, 100), [3000; 5]);
        assert_eq!(delays(300, 100), [300, 300, 300, 400, 800]);
        assert_eq!(delays(0, 10_000), [0, 10_000, 15_000, 15_000, 15_000]);
        assert_eq!(delays(0, 60_000), [0, 60_000, 60_000, 60_000, 60_000]);
        let forever = Policy { backoff: Duration::MAX, ..Policy::default() };
        assert!(matches!(
            next(&Policy { backoff: Duration::from_secs(86_400), ..forever }, Run::FRESH, CRASH, 1.0),
            Next::Again { .. }
        ));
    }

    #[test]
    fn a_good_run_restarts_at_once_and_ends_the_streak() {
        let online = Went { was_online: true, ..CRASH };
        let well = [
            Went { ran: Duration::from_secs(1), ..online },
            Went { has_served: true, ..online },
            Went { has_served: true, ..CRASH },
            Went { end: End::Ended(Ended::Code(0)), has_served: true, ..online },
        ];
        for went in well {
            let again = Next::Again { run: Run::FRESH, after: Duration::ZERO };
            assert_eq!(next(&Policy::default(), Run::Regular { failures: 7 }, went, 0.9), again, "{went:?}");
        }
        let badly = [
            online,
            Went { ran: Duration::from_secs(30), end: End::Unready, has_served: true, ..CRASH },
            Went { ran: Duration::from_secs(30), ..CRASH },
        ];
        for went in badly {
            let next = next(&Policy::default(), Run::Regular { failures: 7 }, went, 0.5);
            assert!(matches!(next, Next::Again { run: Run::Regular { failures: 8 }, .. }), "{went:?}");
        }
    }

    #[test]
    fn some_ends_are_meant() {
        let policy = Policy { stop_exit_codes: vec![0, 42], ..Policy::default() };
        let ended = |code| Went { end: End::Ended(Ended::Code(code)), ..CRASH };
        assert_eq!(next(&policy, Run::FRESH, ended(0), 0.5), Next::Stay);
        assert_eq!(next(&policy, Run::FRESH, ended(42), 0.5), Next::Stay);
        assert!(matches!(next(&policy, Run::FRESH, ended(1), 0.5), Next::Again { .. }));
        let never = Policy { autorestart: false, ..Policy::default() };
        assert_eq!(next(&never, Run::FRESH, ended(1), 0.5), Next::Stay);
    }

    #[test]
    fn a_trial_has_one_chance() {
        assert_eq!(next(&Policy::default(), Run::Trial, CRASH, 0.5), Next::GiveUp);
        assert_eq!(Run::Trial.proved(), Run::FRESH);
        assert_eq!(Run::Regular { failures: 3 }.proved(), Run::Regular { failures: 3 });
    }

    proptest! {
        #[test]
        fn a_delay_stays_within_the_spread(failures in 0..15u32, chance in 0.0..=1.0) {
            let run = Run::Regular { failures };
            let Next::Again { after, .. } = next(&Policy::default(), run, CRASH, chance) else {
                panic!("within the restarts");
            };
            prop_assert!(after >= SHORTEST.mul_f64(1.0 - SPREAD - 1e-9));
            prop_assert!(after <= LONGEST.mul_f64(1.0 + SPREAD + 1e-9));
        }
    }
}
