//! A point in time, as another image of this process can read it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds of CLOCK_MONOTONIC (clock_gettime(2)), which goes on over execve(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Moment(u64);

/// One moment by both clocks. It is taken once, so that two points in time are as far apart as they were.
fn base() -> (Instant, Duration) {
    static BASE: OnceLock<(Instant, Duration)> = OnceLock::new();
    *BASE.get_or_init(|| {
        let clock = rustix::time::clock_gettime(ClockId::Monotonic);
        (Instant::now(), Duration::try_from(clock).unwrap_or_default())
    })
}

impl From<Instant> for Moment {
    fn from(instant: Instant) -> Self {
        let (base, clock) = base();
        let at = match instant.checked_duration_since(base) {
            Some(later) => clock.saturating_add(later),
            None => clock.saturating_sub(base.saturating_duration_since(instant)),
        };
        Self(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Moment> for Instant {
    /// One that this clock cannot show is that of the first question.
    fn from(Moment(nanos): Moment) -> Self {
        let (base, clock) = base();
        let at = Duration::from_nanos(nanos);
        match at.checked_sub(clock) {
            Some(later) => base.checked_add(later),
            None => base.checked_sub(clock.saturating_sub(at)),
        }
        .unwrap_or(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_back_as_the_same_instant() {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        for instant in [now, now + hour, now - Duration::from_millis(7)] {
            let written = serde_json::to_string(&Moment::from(instant)).unwrap();
            let read: Moment = serde_json::from_str(&written).unwrap();
            assert_eq!(Instant::from(read), instant, "{written}");
        }
        assert!(Moment::from(now) < Moment::from(now + hour));
        assert!(Instant::from(Moment(u64::MAX)) > now, "what is far away is no error");
        let _ = Instant::from(Moment(0));
    }
}
