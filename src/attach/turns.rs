//! The processes that the attach socket has in hand: each has its turn, and goes to the next image while it is waited for.
//!
//! What they want, and what they are answered, is not known here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use super::snapshot::{Stage, TurnSnapshot};
use crate::carry::{CarriedFd, Step, Steps};
use crate::sys::closer::ForeignFd;

/// How many there may be at once.
const MOST: usize = 128;

/// All of them. Clones are the same ones.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// Whatever is done beside waiting for them.
    pub(super) steps: Steps,
    free: Arc<Semaphore>,
    waits: Arc<Mutex<Waits>>,
}

/// Who is waited for, in the order in which they came.
#[derive(Debug, Default)]
struct Waits {
    came: u64,
    waiting: BTreeMap<u64, TurnSnapshot>,
}

/// Room for another.
#[derive(Debug)]
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Turn {
    number: u64,
    turns: Turns,
    step: Option<Step>,
    _room: Room,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { steps: Steps::default(), free: Arc::new(Semaphore::new(MOST)), waits: Arc::default() }
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for another.
    pub(super) async fn room(&self) -> Option<Room> {
        Arc::clone(&self.free).acquire_owned().await.ok().map(|_permit| Room { _permit })
    }

    /// Room for another, if there is some.
    pub(super) fn room_now(&self) -> Option<Room> {
        Arc::clone(&self.free).try_acquire_owned().ok().map(|_permit| Room { _permit })
    }

    /// There is another, which is waited for from now on.
    pub(super) fn begin(&self, room: Room, channel: &ForeignFd, stage: Stage, until: Instant) -> Turn {
        let mut waits = self.waits();
        let number = waits.came;
        waits.came += 1;
        waits.waiting.insert(number, wait(channel, stage, until));
        drop(waits);
        Turn { number, turns: self.clone(), step: None, _room: room }
    }

    /// All that are waited for: everybody, once no step is taken.
    pub(super) fn snapshot(&self) -> Vec<TurnSnapshot> {
        self.waits().waiting.values().cloned().collect()
    }
}

impl Turn {
    /// What comes of it within this time, or nothing. It waits for the process alone, and is to take nothing from it.
    pub(super) async fn wait<T>(
        &mut self,
        channel: &ForeignFd,
        (stage, until): (Stage, Instant),
        what: impl Future<Output = T>,
    ) -> Option<T> {
        self.turns.waits().waiting.insert(self.number, wait(channel, stage, until));
        self.step = None;
        let outcome = timeout_at(until.into(), what).await.ok();
        self.step = Some(self.turns.steps.step().await);
        self.turns.waits().waiting.remove(&self.number);
        outcome
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.waits().waiting.remove(&self.number);
    }
}

fn wait(channel: &ForeignFd, stage: Stage, until: Instant) -> TurnSnapshot {
    TurnSnapshot { channel: CarriedFd::of(channel), stage, until: until.into() }
}
