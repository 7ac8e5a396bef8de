//! When a worker that was asked to end is taken to wait for nothing but its channel.
//!
//! Pure: no I/O, no clock but a passed time. What a look finds is for others to see.

use std::time::{Duration, Instant};

use super::snapshot::IdleSnapshot;
use crate::carry::Moment;

/// How often it is looked, and how many looks in a row have to find that.
const LOOK: Duration = Duration::from_millis(25);
const LOOKS: u8 = 2;

/// What was seen of one worker.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// When it is looked next, once the app was asked to end.
    look_at: Option<Instant>,
    /// How many looks in a row have found that it does.
    looks: u8,
}

impl Idle {
    /// The app was asked to end.
    pub(super) fn begin(&mut self, now: Instant) {
        self.look_at = Some(now + LOOK);
    }

    /// It is of no interest any more.
    pub(super) fn end(&mut self) {
        self.look_at = None;
    }

    /// When it is looked next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    /// This was found. Returns whether it is so: then it is not looked again.
    pub(super) fn see(&mut self, is_idle: bool, now: Instant) -> bool {
        self.looks = if is_idle { self.looks.saturating_add(1) } else { 0 };
        let is_so = self.looks >= LOOKS;
        self.look_at = (!is_so).then_some(now + LOOK);
        is_so
    }

    /// As it is written down.
    pub(super) fn snapshot(&self) -> IdleSnapshot {
        IdleSnapshot { look_at: self.look_at.map(Moment::from), looks: self.looks }
    }

    /// As it was.
    pub(super) fn restore(IdleSnapshot { look_at, looks }: IdleSnapshot) -> Self {
        Self { look_at: look_at.map(Instant::from), looks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_two_looks_in_a_row() {
        let (mut idle, now) = (Idle::default(), Instant::now());
        assert_eq!(idle.deadline(), None);
        idle.begin(now);
        for (is_idle, is_so) in [(true, false), (false, false), (true, false), (true, true)] {
            assert_eq!(idle.deadline(), Some(now + LOOK));
            assert_eq!(idle.see(is_idle, now), is_so);
        }
        assert_eq!(idle.deadline(), None);
        idle.begin(now);
        idle.end();
        assert_eq!(idle.deadline(), None);
    }
}
