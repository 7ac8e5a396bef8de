//! How fast empty slots are filled.
//!
//! Programs that start have work for a CPU each: more of them at a time than there are CPUs only get in each other's way, and in
//! the way of those that serve, and the first of them serves later. But who starts may also wait for something else, so
//! nobody is kept back for long.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// The longest time between two starts.
const LONGEST_GAP: Duration = Duration::from_millis(50);
/// How much later the last of any number is started at most.
const LATEST: Duration = Duration::from_millis(200);

/// When the next worker is started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How many are started at once.
    at_once: usize,
    last: Option<Instant>,
}

impl Pace {
    /// On so many CPUs. Nobody was started yet.
    pub(super) fn new(cpus: NonZeroU32) -> Self {
        Self { at_once: cpus.get().try_into().unwrap_or(usize::MAX), last: None }
    }

    /// Somebody was started.
    pub(super) fn started(&mut self, now: Instant) {
        self.last = Some(now);
    }

    /// When the next one may be started, while so many are not ready, of so many that are wanted; `None` for at once.
    pub(super) fn next(&self, launching: usize, wanted: u32) -> Option<Instant> {
        let last = self.last.filter(|_| launching >= self.at_once)?;
        Some(last + LONGEST_GAP.min(LATEST / wanted.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_there_are_cpus_start_at_once() {
        let now = Instant::now();
        let after = |cpus, launching, wanted| {
            let mut pace = Pace::new(NonZeroU32::new(cpus).expect("not zero"));
            pace.started(now);
            pace.next(launching, wanted).map(|next| next.duration_since(now))
        };
        let ms = |ms: f64| Some(Duration::from_secs_f64(ms / 1000.0));
        for (cpus, launching, wanted, expected) in [
            (1, 0, 4, None),
            (1, 1, 4, ms(50.0)),
            (2, 1, 4, None),
            (2, 2, 4, ms(50.0)),
            (2, 3, 4, ms(50.0)),
            (4, 3, 4, None),
            (2, 2, 8, ms(25.0)),
            (2, 2, 64, ms(3.125)),
            (2, 2, 1, ms(50.0)),
            // All were stopped, and a job still counts them.
            (2, 2, 0, ms(50.0)),
        ] {
            assert_eq!(after(cpus, launching, wanted), expected, "{launching} of {wanted} on {cpus}");
        }
    }

    #[test]
    fn the_first_is_started_at_once() {
        assert_eq!(Pace::new(NonZeroU32::MIN).next(1, 4), None);
    }
}
