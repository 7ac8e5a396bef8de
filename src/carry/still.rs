//! What stands still, and what it has.

use std::fmt;

/// A part of clusterd that stands still until this is dropped: what it has is true until then.
pub(crate) struct Still<T> {
    /// What it has.
    pub state: T,
    /// What lets it go on when it is dropped.
    _hold: Box<dyn Send>,
}

impl<T> Still<T> {
    /// It stands still until `hold` is dropped.
    pub(crate) fn new(state: T, hold: impl Send + 'static) -> Self {
        Self { state, _hold: Box::new(hold) }
    }
}

impl<T: fmt::Debug> fmt::Debug for Still<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Still").field(&self.state).finish()
    }
}

/// Why something cannot go to the next image: what it is, and what stands in the way, lower case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotCarried(pub String);
