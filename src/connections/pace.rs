//! When connections are to be listed next, for those who wait for what a list tells.
//!
//! It does no I/O, and has no clock but the times that it is passed.

use std::time::{Duration, Instant};

/// The time between two looks for drains: at first, and later at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The same once nothing was found, which is to be confirmed.
const CONFIRMATION: Duration = Duration::from_millis(5);

/// The same when a connection has ended that may have been the last.
const NEWS: Duration = Duration::from_millis(10);

/// The same while somebody waits for a connection to be free.
const HURRY: Duration = Duration::from_millis(5);

/// The same where the kernel tells of no ends, or some were lost.
const HEALING: Duration = Duration::from_millis(500);

/// The time between two looks at what of the table is over: at least, and where looks take long.
const PURGE: Duration = Duration::from_millis(250);
const LONGEST_PURGE: Duration = Duration::from_secs(1);

/// A pause is so many times as long as the look before it, but for that no longer than the longest one: a machine with very
/// many sockets is not to be kept busy with counting them.
const PAUSES_A_LOOK: u32 = 9;

/// So many looks heal that events were lost: a socket may be about to be destroyed at the first.
const HEALING_LOOKS: u8 = 2;

/// What has been seen, as far as the time of the next look depends on it.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the last look ended, and how long it took.
    looked: Instant,
    cost: Duration,
    drains: Drains,
    /// How long drains of which nothing is heard wait between two looks.
    pause: Duration,
    /// So many looks are due because events were lost.
    healing: u8,
}

/// What is known of the drains since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drains {
    /// Nothing new.
    Unchanged,
    /// An end was told that may have been what one waited for, or one has begun.
    HaveNews,
    /// One was found to have nothing, which is to be confirmed, whatever else is told.
    ToConfirm,
}

/// Who waits for a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Somebody asks what is open now.
    pub(super) snapshot: bool,
    /// A worker drains.
    pub(super) drain: bool,
    /// Somebody waits for a connection to be free.
    pub(super) place: bool,
    /// Somebody is told of ends, some of which the kernel does not tell.
    pub(super) lost: bool,
    /// From when on it is not waited any more for the end of one that is in no list.
    pub(super) overdue: Option<Instant>,
    /// The table has much that may be over.
    pub(super) stale: bool,
}

impl Pace {
    /// Nothing was looked at before.
    pub(super) fn new(now: Instant) -> Self {
        let (cost, drains) = (Duration::ZERO, Drains::Unchanged);
        Self { looked: now, cost, drains, pause: FIRST_PAUSE, healing: 0 }
    }

    /// A drain has begun.
    pub(super) fn drain_began(&mut self) {
        self.pause = FIRST_PAUSE;
        self.news();
    }

    /// Something has ended that a drain may have waited for.
    pub(super) fn news(&mut self) {
        if self.drains == Drains::Unchanged {
            self.drains = Drains::HaveNews;
        }
    }

    /// What has ended until now may not have been told.
    pub(super) fn events_lost(&mut self) {
        self.healing = HEALING_LOOKS;
    }

    /// A look has begun, with all that was told before it.
    pub(super) fn look_began(&mut self) {
        if self.drains != Drains::HaveNews {
            self.pause = (self.pause * 5 / 4).min(LONGEST_PAUSE);
        }
        self.drains = Drains::Unchanged;
    }

    /// There is a list, so that less is left to be healed.
    pub(super) fn listed(&mut self) {
        self.healing = self.healing.saturating_sub(1);
    }

    /// A drain was found to have nothing, which is to be confirmed.
    pub(super) fn found_clear(&mut self) {
        self.drains = Drains::ToConfirm;
    }

    /// A look is over.
    pub(super) fn look_ended(&mut self, start: Instant, end: Instant) {
        (self.looked, self.cost) = (end, end.saturating_duration_since(start));
    }

    /// Whether some ends may not have been told.
    pub(super) fn is_healing(&self) -> bool {
        self.healing > 0
    }

    /// When it is to be looked next, if at all.
    pub(super) fn due(&self, waiting: Waiting) -> Option<Instant> {
        let pauses = [
            waiting.snapshot.then_some(Duration::ZERO),
            waiting.drain.then(|| match self.drains {
                Drains::ToConfirm => CONFIRMATION,
                Drains::HaveNews => self.paced(NEWS),
                Drains::Unchanged => self.paced(self.pause),
            }),
            waiting.place.then(|| self.paced(HURRY)),
            waiting.lost.then(|| self.paced(HEALING)),
            waiting.stale.then(|| (self.cost * PAUSES_A_LOOK).clamp(PURGE, LONGEST_PURGE)),
        ];
        let due = pauses.into_iter().flatten().map(|pause| self.looked + pause);
        let overdue = waiting.overdue.map(|at| at.max(self.looked + self.paced(HEALING)));
        due.chain(overdue).min()
    }

    /// Longer after a look that took long.
    fn paced(&self, pause: Duration) -> Duration {
        pause.max((self.cost * PAUSES_A_LOOK).min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Waiting =
        Waiting { snapshot: false, drain: false, place: false, lost: false, overdue: None, stale: false };
    const DRAIN: Waiting = Waiting { drain: true, ..NOBODY };

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A look that took so long, and whether a drain was found to have nothing.
    fn look(pace: &mut Pace, took: Duration, is_any_clear: bool) {
        let start = pace.looked;
        pace.look_began();
        pace.listed();
        if is_any_clear {
            pace.found_clear();
        }
        pace.look_ended(start, start + took);
    }

    #[test]
    fn who_waits_decides_how_soon_it_is_looked_and_a_long_look_makes_it_later() {
        let cases = [
            // Who waits, and how long after a look that took nothing, 2 ms, and a second.
            (NOBODY, None),
            (Waiting { snapshot: true, ..NOBODY }, Some([0, 0, 0])),
            (DRAIN, Some([62, 62, 500])),
            (Waiting { place: true, ..NOBODY }, Some([5, 18, 500])),
            (Waiting { lost: true, ..NOBODY }, Some([500, 500, 500])),
            (Waiting { stale: true, ..NOBODY }, Some([250, 250, 1000])),
            (Waiting { stale: true, place: true, ..DRAIN }, Some([5, 18, 500])),
        ];
        for (waiting, expected) in cases {
            for (index, took) in [0, 2, 1000].into_iter().enumerate() {
                let mut pace = Pace::new(Instant::now());
                look(&mut pace, millis(took), false);
                let due =
                    pace.due(waiting).map(|due| u64::try_from((due - pace.looked).as_millis()).unwrap());
                assert_eq!(due, expected.map(|after| after[index]), "{waiting:?}, {took} ms");
            }
        }
    }

    #[test]
    fn a_drain_of_which_nothing_is_heard_is_looked_at_less_and_less() {
        let mut pace = Pace::new(Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..14 {
            pauses.push(pace.due(DRAIN).unwrap() - pace.looked);
            look(&mut pace, Duration::ZERO, false);
        }
        assert_eq!((pauses[0], pauses[13]), (FIRST_PAUSE, LONGEST_PAUSE));
        assert!(pauses.is_sorted());
        pace.drain_began();
        look(&mut pace, Duration::ZERO, false);
        assert_eq!(pace.due(DRAIN), Some(pace.looked + FIRST_PAUSE));
    }

    #[test]
    fn news_are_looked_at_soon_and_what_is_to_be_confirmed_sooner() {
        let mut pace = Pace::new(Instant::now());
        pace.news();
        assert_eq!(pace.due(DRAIN), Some(pace.looked + NEWS));
        look(&mut pace, millis(100), true);
        assert_eq!(pace.due(DRAIN), Some(pace.looked + CONFIRMATION), "however long a look takes");
        pace.news();
        assert_eq!(pace.due(DRAIN), Some(pace.looked + CONFIRMATION));
        look(&mut pace, Duration::ZERO, false);
        assert_eq!(pace.due(DRAIN), Some(pace.looked + FIRST_PAUSE * 5 / 4), "it was not confirmed");
    }

    #[test]
    fn lost_events_are_healed_by_two_lists() {
        let mut pace = Pace::new(Instant::now());
        pace.events_lost();
        for is_left in [true, false, false] {
            assert!(pace.is_healing() || !is_left);
            look(&mut pace, Duration::ZERO, false);
            assert_eq!(pace.is_healing(), is_left);
        }
    }

    #[test]
    fn what_is_overdue_is_looked_for_when_it_is_and_no_sooner_than_healing() {
        let pace = Pace::new(Instant::now());
        let later = pace.looked + Duration::from_secs(60);
        for (overdue, due) in [(later, later), (pace.looked, pace.looked + HEALING)] {
            assert_eq!(pace.due(Waiting { overdue: Some(overdue), ..NOBODY }), Some(due));
        }
    }
}
