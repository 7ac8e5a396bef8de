//! The pipes of a worker that are being read at a time: those of its launches, of which only so many are kept.
//!
//! It reads nothing. While nobody reads clusterd's output, the pipe of a launch that has ended waits with what is in it, and
//! a worker may be started again any number of times meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::task::AbortHandle;

use crate::ids::Slot;

/// How many pipes of one worker are kept.
pub(super) const MOST: usize = 16;

/// The pipes whose lines go to one destination, by the tasks that read them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct OpenPipes(Mutex<BTreeMap<Slot, VecDeque<AbortHandle>>>);

impl OpenPipes {
    /// This task reads one more. Returns whether the oldest was given up for it.
    pub(super) fn add(&self, slot: Slot, reading: AbortHandle) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_worker = open.entry(slot).or_default();
        of_worker.retain(|reading| !reading.is_finished());
        of_worker.push_back(reading);
        if of_worker.len() <= MOST {
            return false;
        }
        of_worker.pop_front().inspect(AbortHandle::abort).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn of_each_worker_the_oldest_is_given_up_when_there_are_too_many() {
        let open = OpenPipes::default();
        let add = |slot| {
            let reading = tokio::spawn(pending::<()>());
            (open.add(Slot(slot), reading.abort_handle()), reading)
        };
        let (oldest, rest): (_, Vec<_>) = (add(1), (1..MOST).map(|_| add(1)).collect());
        assert!(!oldest.0 && rest.iter().all(|(gave_up, _)| !gave_up));
        assert!(!add(2).0, "another worker has its own");
        assert!(add(1).0);
        assert!(oldest.1.await.unwrap_err().is_cancelled());
        assert!(rest.iter().all(|(_, reading)| !reading.is_finished()));
        // One that has come to its end makes room.
        rest[0].1.abort();
        while !rest[0].1.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(!add(1).0);
    }
}
