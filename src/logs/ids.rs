//! The numbers that workers have over all apps of a home folder, as lines of their output bear them.
//!
//! Who gives them is not known here.

use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::Slot;

/// The numbers, that of worker 1 first. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkerIds(Arc<Mutex<Vec<u32>>>);

impl WorkerIds {
    /// From now on they are these.
    pub(crate) fn set(&self, ids: Vec<u32>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ids;
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// That of this worker.
    pub(super) fn of(&self, slot: Slot) -> u32 {
        id_of(&self.0.lock().unwrap_or_else(PoisonError::into_inner), slot)
    }
}

/// That of this worker among those of its app; counted from 0, as PM2 does, where none was given.
pub(crate) fn id_of(ids: &[u32], slot: Slot) -> u32 {
    let index = slot.0.saturating_sub(1);
    ids.get(index as usize).copied().unwrap_or(index)
}
