//! Which links of a service have something to tell: each is put in here by its own waker.
//!
//! So only they are looked at, however many there are. It knows nothing of what they have to tell.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use super::LinkKey;

/// The keys of links that were woken, and the task that looks after them.
///
/// Wakers may be used by any thread, which is why there is a lock; only the front's thread does.
#[derive(Debug, Default)]
pub(super) struct ReadySet(Mutex<Woken>);

#[derive(Debug, Default)]
struct Woken {
    keys: Vec<LinkKey>,
    task: Option<Waker>,
}

/// Puts one link into the set.
#[derive(Debug)]
pub(super) struct Mark {
    key: LinkKey,
    is_marked: AtomicBool,
    set: Arc<ReadySet>,
}

impl ReadySet {
    /// Puts the link with this key in whenever its waker is used.
    pub(super) fn mark(self: &Arc<Self>, key: LinkKey) -> Arc<Mark> {
        Arc::new(Mark { key, is_marked: AtomicBool::new(false), set: Arc::clone(self) })
    }

    /// Moves the keys of all that are in the set to the end of `keys`, in the order in which they came in, and wakes
    /// `task` when the next one does.
    pub(super) fn drain(&self, keys: &mut Vec<LinkKey>, task: &Waker) {
        let mut woken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.append(&mut woken.keys);
        if woken.task.as_ref().is_none_or(|known| !known.will_wake(task)) {
            woken.task = Some(task.clone());
        }
    }
}

impl Mark {
    /// The link is looked at from now on: what happens later puts it in again.
    pub(super) fn clear(&self) {
        // Whoever sees it unset comes after this, and whoever does not has done so before: neither is missed.
        self.is_marked.swap(false, Ordering::AcqRel);
    }
}

impl Wake for Mark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_marked.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut woken = self.set.0.lock().unwrap_or_else(PoisonError::into_inner);
        woken.keys.push(self.key);
        if let Some(task) = &woken.task {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_each_that_was_woken_once_in_the_order_of_waking() {
        let set = Arc::new(ReadySet::default());
        let marks = [0, 1, 2].map(|key| set.mark(LinkKey(key)));
        let wakers = marks.clone().map(Waker::from);
        for index in [2, 0, 2, 2] {
            wakers[index].wake_by_ref();
        }
        let mut keys = Vec::new();
        set.drain(&mut keys, Waker::noop());
        assert_eq!(keys, [2, 0].map(LinkKey));
        marks[2].clear();
        for index in [0, 2, 1] {
            wakers[index].wake_by_ref();
        }
        keys.clear();
        set.drain(&mut keys, Waker::noop());
        assert_eq!(keys, [2, 1].map(LinkKey), "who was not looked at yet is in already");
    }

    #[test]
    fn its_task_is_woken() {
        let (set, task) = (Arc::new(ReadySet::default()), Arc::new(ReadySet::default()));
        let outer = task.mark(LinkKey(7));
        set.drain(&mut Vec::new(), &Waker::from(Arc::clone(&outer)));
        Waker::from(set.mark(LinkKey(1))).wake();
        let mut keys = Vec::new();
        task.drain(&mut keys, Waker::noop());
        assert_eq!(keys, [LinkKey(7)]);
    }
}
