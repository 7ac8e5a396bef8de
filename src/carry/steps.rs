//! How many tasks stand still together: each changes things only in steps, and may be held up between two of them.
//!
//! What a step is, its task knows. Whoever waits for others, who may take long, waits between steps.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::timeout;

/// The steps of some tasks. Clones are of the same ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps(Arc<RwLock<()>>);

/// A step, until it is dropped. Nobody takes another one meanwhile in the same task.
#[derive(Debug)]
pub(crate) struct Step {
    _taken: OwnedRwLockReadGuard<()>,
}

/// No step is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct NoSteps {
    _all: OwnedRwLockWriteGuard<()>,
}

impl Steps {
    /// Begins a step, once that is possible. Nothing is lost when this is dropped.
    pub(crate) async fn step(&self) -> Step {
        Step { _taken: Arc::clone(&self.0).read_owned().await }
    }

    /// Begins a step, if that is possible now.
    pub(crate) fn step_now(&self) -> Option<Step> {
        Some(Step { _taken: Arc::clone(&self.0).try_read_owned().ok()? })
    }

    /// Lets all steps come to an end, and no other begin; `None` if one takes longer than this, and then all go on.
    pub(crate) async fn stop(&self, within: Duration) -> Option<NoSteps> {
        Some(NoSteps { _all: timeout(within, Arc::clone(&self.0).write_owned()).await.ok()? })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_step_ends_before_all_stand_still_and_none_begins_until_they_go_on() {
        let steps = Steps::default();
        let (one, other) = (steps.step().await, steps.step().await);
        let mut stopping = Box::pin(steps.stop(LONG));
        assert!((&mut stopping).now_or_never().is_none());
        let mut third = Box::pin(steps.step());
        assert!((&mut third).now_or_never().is_none(), "who comes later does not hold up who waits");
        drop((one, other));
        let stopped = stopping.await.unwrap();
        assert!((&mut third).now_or_never().is_none() && steps.step_now().is_none());
        drop(stopped);
        drop(third.await);
        assert!(steps.step_now().is_some());
    }

    #[tokio::test]
    async fn a_step_that_takes_long_is_not_waited_for_and_all_go_on() {
        let steps = Steps::default();
        let step = steps.step().await;
        assert!(steps.stop(Duration::from_millis(1)).await.is_none());
        assert!(steps.step().now_or_never().is_some());
        drop(step);
        assert!(steps.stop(LONG).await.is_some());
    }
}
