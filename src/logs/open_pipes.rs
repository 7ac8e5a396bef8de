//! The pipes of a worker that are being read at a time: those of its launches, of which only so many are kept.
//!
//! It reads nothing. While nobody reads clusterd's output, the pipe of a launch that has ended waits with what is in it, and
//! a worker may be started again any number of times meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::capture::Standing;
use super::last::WatchedLines;
use crate::carry::{Frozen, StandStill, stand_still};
use crate::ids::{Slot, WorkerId};

/// How many pipes of one worker are kept.
pub(super) const MOST: usize = 16;

/// The pipes whose lines go to one destination, the oldest first. One that is at its end stays as long as somebody keeps its last
/// lines.
#[derive(Debug, Default)]
pub(super) struct OpenPipes(Mutex<BTreeMap<Slot, VecDeque<OpenPipe>>>);

/// The pipe of one launch.
#[derive(Clone, Debug)]
pub(super) struct OpenPipe {
    pub(super) worker: WorkerId,
    /// Who reads it, until it is at its end.
    pub(super) reader: Option<Reader>,
    pub(super) last: WatchedLines,
}

/// A task that reads a pipe.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) task: AbortHandle,
    pub(super) asks: mpsc::Sender<StandStill<Standing>>,
}

impl OpenPipes {
    /// There is one more. Returns whether the oldest was given up for it.
    pub(super) fn add(&self, pipe: OpenPipe) -> bool {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_worker = open.entry(pipe.worker.slot).or_default();
        of_worker.retain(|pipe| pipe.reader().is_some() || pipe.last.are_kept());
        of_worker.push_back(pipe);
        if of_worker.iter().filter_map(OpenPipe::reader).count() <= MOST {
            return false;
        }
        let oldest = of_worker.iter_mut().find(|pipe| pipe.reader().is_some());
        oldest.and_then(|oldest| oldest.reader.take()).inspect(|reader| reader.task.abort()).is_some()
    }

    /// All of them, those of each worker in their order.
    pub(super) fn all(&self) -> Vec<OpenPipe> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().flatten().cloned().collect()
    }
}

impl OpenPipe {
    /// Asks whoever reads it to stand still; `None` if it is at its end.
    pub(super) fn ask(&self) -> Option<Frozen<Standing>> {
        let (asked, frozen) = stand_still();
        self.reader()?.asks.try_send(asked).ok()?;
        Some(frozen)
    }

    fn reader(&self) -> Option<&Reader> {
        self.reader.as_ref().filter(|reader| !reader.task.is_finished())
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::logs::last::LastLines;

    #[tokio::test]
    async fn of_each_worker_the_oldest_is_given_up_when_there_are_too_many() {
        let open = OpenPipes::default();
        let kept = LastLines::new().0;
        let add = |slot, last: &LastLines| {
            let reading = tokio::spawn(pending::<()>());
            let reader = Reader { task: reading.abort_handle(), asks: mpsc::channel(1).0 };
            let worker = WorkerId { slot: Slot(slot), launch: 7 };
            (open.add(OpenPipe { worker, reader: Some(reader), last: last.watched() }), reading)
        };
        let nobodys = || LastLines::new().0;
        let (oldest, rest): (_, Vec<_>) = (add(1, &kept), (1..MOST).map(|_| add(1, &nobodys())).collect());
        assert!(!oldest.0 && rest.iter().all(|(gave_up, _)| !gave_up));
        assert!(!add(2, &nobodys()).0, "another worker has its own");
        assert!(add(1, &nobodys()).0);
        assert!(oldest.1.await.unwrap_err().is_cancelled());
        assert!(rest.iter().all(|(_, reading)| !reading.is_finished()));
        // One that has come to its end makes room.
        rest[0].1.abort();
        while !rest[0].1.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(!add(1, &nobodys()).0);
        assert_eq!(open.all().len(), MOST + 2, "the last lines of the oldest are kept");
        drop(kept);
        assert!(add(1, &nobodys()).0);
        assert_eq!(open.all().len(), MOST + 2);
    }
}
