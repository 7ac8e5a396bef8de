//! How many connections each launch of a worker has: open ones, and those on their way to it.
//!
//! Pure. It is told when one is given and when one comes back; that one has ended is seen elsewhere, and told in sums.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use super::snapshot::OccupiedSnapshot;
use crate::ids::WorkerId;

/// The counts, if anybody needs them.
#[derive(Debug)]
pub(crate) struct Occupancy {
    is_counted: bool,
    /// How many each may have.
    most: Option<NonZeroUsize>,
    open: BTreeMap<WorkerId, usize>,
    last_given: Option<WorkerId>,
    /// Whose count has changed since that was last asked.
    changed: Vec<WorkerId>,
    /// Whether anybody's count has sunk since that was last asked.
    has_room_again: bool,
}

/// How many a worker has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Occupied {
    /// So many.
    pub open: usize,
    /// As many as it may have.
    pub is_full: bool,
}

impl Occupancy {
    /// Nobody has any. They are counted if there is a limit, or if it `is_wanted`.
    pub(crate) fn new(is_wanted: bool, most: Option<NonZeroUsize>) -> Self {
        let is_counted = is_wanted || most.is_some();
        Self {
            is_counted,
            most,
            open: BTreeMap::new(),
            last_given: None,
            changed: Vec::new(),
            has_room_again: false,
        }
    }

    /// The counts as they are written down.
    pub(super) fn snapshot(&self) -> Vec<OccupiedSnapshot> {
        let open = self.open.iter();
        open.map(|(&worker, &connections)| OccupiedSnapshot { worker, connections }).collect()
    }

    /// Workers have so many, if anybody needs it.
    pub(super) fn resume(&mut self, occupied: &[OccupiedSnapshot], last_given: Option<WorkerId>) {
        if self.is_counted {
            self.open.extend(occupied.iter().map(|occupied| (occupied.worker, occupied.connections)));
            self.changed = self.open.keys().copied().collect();
            self.last_given = last_given;
        }
    }

    /// Whether they are counted.
    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// Whether a worker may have so many and no more.
    pub(crate) fn has_limit(&self) -> bool {
        self.most.is_some()
    }

    /// How many the worker has.
    pub(crate) fn of(&self, worker: WorkerId) -> Occupied {
        let open = self.open.get(&worker).copied().unwrap_or_default();
        Occupied { open, is_full: self.most.is_some_and(|most| open >= most.get()) }
    }

    /// The worker is given one.
    pub(crate) fn given(&mut self, worker: WorkerId) {
        if self.is_counted {
            let open = self.open.entry(worker).or_default();
            *open = open.saturating_add(1);
            self.last_given = Some(worker);
            self.changed(worker);
        }
    }

    /// Of those that the worker was given, so many have ended or have come back.
    pub(crate) fn ended(&mut self, worker: WorkerId, connections: usize) {
        // A worker that is gone has none.
        if let Some(open) = self.open.get_mut(&worker) {
            *open = open.saturating_sub(connections);
            self.has_room_again = true;
            self.changed(worker);
        }
    }

    /// The worker is gone.
    pub(crate) fn forget(&mut self, worker: WorkerId) {
        self.open.remove(&worker);
    }

    fn changed(&mut self, worker: WorkerId) {
        // Most often the same worker, or a few.
        if !self.changed.contains(&worker) {
            self.changed.push(worker);
        }
    }

    /// Who was given a connection last.
    pub(crate) fn last_given(&self) -> Option<WorkerId> {
        self.last_given
    }

    /// Takes out whose count has changed, and what it is.
    pub(crate) fn changes(&mut self) -> Vec<(WorkerId, Occupied)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|worker| (worker, self.of(worker))).collect()
    }

    /// Whether anybody has fewer than when this was last asked.
    pub(crate) fn has_room_again(&mut self) -> bool {
        std::mem::take(&mut self.has_room_again)
    }
}
