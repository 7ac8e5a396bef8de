//! How often the kernel is asked for the figures of an app, by those who look again and again.
//!
//! It asks nobody.

use std::time::Duration;

/// Sooner, an answer says nothing new: the kernel counts CPU time in hundredths of a second.
const SOONEST: Duration = Duration::from_millis(500);

/// An older answer would be taken for the present.
const LATEST: Duration = Duration::from_secs(3);

/// Of the time, asking takes this part at most: many apps with many workers are watched at once.
const PART: u32 = 2000;

/// How long an answer is good for that took so long to get: CPU time, as far as it is known.
pub(crate) fn pace(took: Duration) -> Duration {
    (took * PART).clamp(SOONEST, LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_asked_seldom() {
        for (took, expected) in [(0, 500), (250, 500), (1_250, 2_500), (1_000_000, 3_000)] {
            assert_eq!(pace(Duration::from_micros(took)), Duration::from_millis(expected), "{took} us");
        }
    }
}
