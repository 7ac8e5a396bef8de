//! The numbers that workers have over all apps of a home folder, as lines of their output bear them.
//!
//! Who gives them is not known here.

use tokio::sync::watch;

use crate::ids::Slot;

/// The numbers, that of worker 1 first. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerIds(watch::Sender<Vec<u32>>);

impl WorkerIds {
    /// From now on they are these.
    pub(crate) fn set(&self, ids: Vec<u32>) {
        self.0.send_replace(ids);
    }

    /// So many workers are counted as if there were no other app, but those that have a number: no others can be given.
    pub(crate) fn count_alone(&self, workers: u32) {
        self.0.send_modify(|ids| {
            ids.truncate(workers as usize);
            let had = u32::try_from(ids.len()).unwrap_or(workers);
            ids.extend(had..workers);
        });
    }

    /// Waits until so many workers have theirs.
    pub(crate) async fn are_given(&self, workers: u32) {
        // It fails when nobody can set them any more: they can here.
        let _ = self.0.subscribe().wait_for(|ids| ids.len() == workers as usize).await;
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<u32> {
        self.0.borrow().clone()
    }

    /// That of this worker.
    pub(super) fn of(&self, slot: Slot) -> u32 {
        id_of(&self.0.borrow(), slot)
    }
}

/// That of this worker among those of its app; counted from 0, as PM2 does, where none was given.
pub(crate) fn id_of(ids: &[u32], slot: Slot) -> u32 {
    let index = slot.0.saturating_sub(1);
    ids.get(index as usize).copied().unwrap_or(index)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_numbers_goes_on_when_they_are_given() {
        let ids = WorkerIds::default();
        ids.set(vec![4]);
        ids.are_given(1).await;
        assert_eq!(ids.are_given(3).now_or_never(), None, "two have none");
        let later = ids.clone();
        let waiting = tokio::spawn(async move { later.are_given(3).await });
        ids.set(vec![4, 7, 8]);
        waiting.await.unwrap();
        ids.count_alone(5);
        assert_eq!(ids.all(), [4, 7, 8, 3, 4]);
        ids.count_alone(2);
        assert_eq!(ids.all(), [4, 7]);
        ids.are_given(2).await;
    }
}
