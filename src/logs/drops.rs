//! Lines that could not be written to a file: counted, said once in a while, and no worker waits for them.
//!
//! It writes nothing itself but that message.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tracing::warn;

use super::snapshot::DropsSnapshot;

/// How long a worker may have to wait for a file, at a time.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// How long a file that has exhausted that is not waited for at all.
const IMPATIENCE: Duration = Duration::from_secs(10);

/// How often it is said that lines are dropped.
const BETWEEN: Duration = Duration::from_secs(10);

/// What a file has cost.
#[derive(Debug)]
pub(super) struct Drops {
    file: PathBuf,
    counter: IntCounter,
    /// Whether it may be said: not of the file in which it would be.
    is_said: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    unsaid: u64,
    why: String,
    said: Option<Instant>,
    late_until: Option<Instant>,
}

impl Drops {
    pub(super) fn new(file: &Path, counter: IntCounter, is_said: bool) -> Self {
        Self { file: file.to_owned(), counter, is_said, state: Mutex::default() }
    }

    /// What the next image of clusterd has to know of it. The counter is among the metrics.
    pub(super) fn snapshot(&self) -> DropsSnapshot {
        let state = self.lock();
        DropsSnapshot {
            unsaid: state.unsaid,
            why: state.why.clone(),
            said: state.said.map(Into::into),
            late_until: state.late_until.map(Into::into),
        }
    }

    /// Goes on from there.
    pub(super) fn restore(&self, snapshot: DropsSnapshot) {
        let DropsSnapshot { unsaid, why, said, late_until } = snapshot;
        // No longer than it could have been.
        let latest = Instant::now() + IMPATIENCE;
        let late_until = late_until.map(|until| Instant::from(until).min(latest));
        *self.lock() = State { unsaid, why, said: said.map(Into::into), late_until };
    }

    /// Whether there is patience left.
    pub(super) fn may_wait(&self) -> bool {
        let mut state = self.lock();
        if state.late_until.is_some_and(|until| until <= Instant::now()) {
            state.late_until = None;
        }
        state.late_until.is_none()
    }

    /// Lines of a worker found no room in time, or could not wait for it.
    pub(super) fn late(&self, lines: u64) {
        self.lock().late_until.get_or_insert_with(|| Instant::now() + IMPATIENCE);
        self.count(lines, &"it is written too slowly");
    }

    /// Lines could not be written.
    pub(super) fn count(&self, lines: u64, why: &dyn Display) {
        self.counter.inc_by(lines);
        let mut state = self.lock();
        state.unsaid = state.unsaid.saturating_add(lines);
        state.why = why.to_string();
        self.say(state);
    }

    /// Lines could be written. What was not said before is.
    pub(super) fn settle(&self) {
        let state = self.lock();
        if state.unsaid > 0 {
            self.say(state);
        }
    }

    fn say(&self, mut state: MutexGuard<'_, State>) {
        if !self.is_said || state.said.is_some_and(|said| said.elapsed() < BETWEEN) {
            return;
        }
        state.said = Some(Instant::now());
        let (dropped, why) = (std::mem::take(&mut state.unsaid), std::mem::take(&mut state.why));
        drop(state);
        warn!(file = %self.file.display(), dropped, "lines of workers dropped: {why}");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many lines that is; the last may lack its end.
pub(super) fn lines_in(bytes: &[u8]) -> u64 {
    let ends = memchr::memchr_iter(b'\n', bytes).count() as u64;
    ends + u64::from(bytes.last().is_some_and(|&byte| byte != b'\n'))
}
