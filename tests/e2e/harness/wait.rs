//! Waiting for a condition, never longer than a deadline.
//!
//! There is no other wait in the tests: nothing sleeps for a time that should be long enough.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up: far more than it takes on a loaded machine of two cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `check` gives something; panics with `what` at the deadline.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        thread::sleep(PAUSE);
    }
}
