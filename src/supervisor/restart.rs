//! When a worker that has ended is started again.
//!
//! A pure rule, as PM2's `exp_backoff_restart_delay` has it. It knows no processes and takes its chance from
//! the caller. It applies to every end alike: a server that leaves with code 0 is missed as much as one that
//! crashed.

use std::time::Duration;

/// A worker that ran for this long ran well: it is started again at once.
pub const RAN_WELL: Duration = Duration::from_secs(1);
/// The first delay of a streak.
pub const SHORTEST: Duration = Duration::from_millis(100);
/// Delays double up to this one.
pub const LONGEST: Duration = Duration::from_secs(15);
/// Delays are spread by this part of themselves in both directions, so that workers which fail together do not
/// come back together.
pub const SPREAD: f64 = 0.2;

/// How many times in a row a worker has ended too soon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak(u32);

impl Streak {
    /// How many.
    pub fn len(self) -> u32 {
        self.0
    }

    /// The worker's last run was a good one, or it has had none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The streak after a run of `ran`, and how long to wait before the next start. `chance` is a random number
/// from 0 to 1.
pub fn after(streak: Streak, ran: Duration, chance: f64) -> (Streak, Duration) {
    if ran >= RAN_WELL {
        return (Streak(0), Duration::ZERO);
    }
    let doublings = streak.0.min(16);
    let delay = SHORTEST.saturating_mul(1 << doublings).min(LONGEST);
    let spread = 1.0 + SPREAD * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
    (Streak(streak.0.saturating_add(1)), delay.mul_f64(spread))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut streak = Streak::default();
        let mut delays = Vec::new();
        for _ in 0..10 {
            let (next, delay) = after(streak, Duration::ZERO, 0.5);
            streak = next;
            delays.push(delay.as_millis());
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
    }

    #[test]
    fn a_good_run_restarts_at_once_and_ends_the_streak() {
        assert_eq!(after(Streak(7), RAN_WELL, 0.9), (Streak(0), Duration::ZERO));
    }

    proptest! {
        #[test]
        fn a_delay_stays_within_the_spread(streak: u32, ran_ms in 0u64..999, chance in 0.0..=1.0) {
            let (next, delay) = after(Streak(streak), Duration::from_millis(ran_ms), chance);
            prop_assert!(delay >= SHORTEST.mul_f64(1.0 - SPREAD - 1e-9));
            prop_assert!(delay <= LONGEST.mul_f64(1.0 + SPREAD + 1e-9));
            prop_assert!(next.len() >= streak);
        }
    }
}
