//! Whether clients come so fast that the front lets others run before it sleeps.
//!
//! Pure, but for what the front's thread remembers. By the time that it looks again, workers have then taken several connections,
//! and more clients have come: it sleeps and wakes half as often. Where connections come one by one it would only be
//! interrupted, and beside others who compute it would wait for them.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// Over this time connections are counted.
const SPAN: Duration = Duration::from_millis(10);

/// As many in this time are a crowd: 5,000 a second.
const MANY: usize = 50;

thread_local! {
    static CROWD: Cell<Option<Crowd>> = const { Cell::new(None) };
}

/// What has come lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Crowd {
    since: Instant,
    /// Since then.
    count: usize,
    /// Whether as many came in the span before.
    is_crowd: bool,
}

/// So many connections have come, and were given or wait.
pub(super) fn came(connections: usize, now: Instant) {
    CROWD.set(Some(after(CROWD.get(), connections, now)));
}

/// To be called before the front's thread sleeps.
pub(crate) fn about_to_sleep() {
    if CROWD.get().is_some_and(|crowd| crowd.is_crowd) {
        thread::yield_now();
    }
}

fn after(before: Option<Crowd>, connections: usize, now: Instant) -> Crowd {
    match before {
        Some(crowd) if now < crowd.since + SPAN => Crowd { count: crowd.count + connections, ..crowd },
        // Of a span that has passed long ago, nothing is to be learned.
        Some(crowd) if now < crowd.since + 2 * SPAN => {
            Crowd { since: now, count: connections, is_crowd: crowd.count >= MANY }
        }
        _ => Crowd { since: now, count: connections, is_crowd: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One after the other, each so many microseconds after the one before.
    fn is_crowd_after(count: u64, apart: u64) -> bool {
        let begin = Instant::now();
        let at = |index| begin + Duration::from_micros(index * apart);
        (0..count)
            .fold(None, |crowd, index| Some(after(crowd, 1, at(index))))
            .is_some_and(|crowd| crowd.is_crowd)
    }

    #[test]
    fn it_takes_many_for_longer_than_a_moment() {
        let cases = [
            ("6,000 a second", is_crowd_after(200, 166), true),
            ("as fast, for a moment", is_crowd_after(60, 166), false),
            ("2,000 a second", is_crowd_after(200, 500), false),
            ("none", is_crowd_after(0, 1), false),
        ];
        for (name, is_crowd, expected) in cases {
            assert_eq!(is_crowd, expected, "{name}");
        }
    }

    #[test]
    fn a_crowd_is_forgotten() {
        let begin = Instant::now();
        let crowd = after(Some(Crowd { since: begin, count: MANY, is_crowd: true }), 1, begin + SPAN);
        assert!(crowd.is_crowd);
        assert!(!after(Some(crowd), 1, begin + 2 * SPAN).is_crowd);
        assert!(!after(Some(crowd), MANY, begin + 4 * SPAN).is_crowd);
    }
}
