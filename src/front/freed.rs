//! Connections that workers do not have any more, told from another thread.
//!
//! Whoever tells it never waits, and what was told and not yet heard has a bound: it is added up by worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use crate::ids::WorkerId;

/// What was told; clones speak of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freed(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    /// By worker, how many.
    connections: BTreeMap<WorkerId, usize>,
    task: Option<Waker>,
}

impl Freed {
    /// For each of these, the worker has one connection fewer.
    pub(crate) fn tell(&self, workers: impl IntoIterator<Item = WorkerId>) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for worker in workers {
            *told.connections.entry(worker).or_default() += 1;
        }
        if let Some(task) = &told.task {
            task.wake_by_ref();
        }
    }

    /// Takes what was told since this was last asked, and wakes `task` when there is more.
    pub(super) fn hear(&self, task: &Waker) -> BTreeMap<WorkerId, usize> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.task.as_ref().is_none_or(|known| !known.will_wake(task)) {
            told.task = Some(task.clone());
        }
        std::mem::take(&mut told.connections)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::ids::Slot;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_was_told_is_added_up_and_heard_once() {
        let worker = |launch| WorkerId { slot: Slot(1), launch };
        let (freed, woken) = (Freed::default(), Arc::new(Woken::default()));
        let task = Waker::from(Arc::clone(&woken));
        freed.tell([worker(1), worker(2), worker(1)]);
        assert_eq!(freed.hear(&task), BTreeMap::from([(worker(1), 2), (worker(2), 1)]));
        assert!(freed.hear(&task).is_empty() && !woken.0.load(Ordering::Relaxed));
        freed.clone().tell([worker(3)]);
        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!(freed.hear(&task), BTreeMap::from([(worker(3), 1)]));
    }
}
