//! What the front knows of each launch of a worker, and what it has to tell the rest about it.
//!
//! It moves no connection: services write into it what they see, and ask it for whom a new channel is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::{Duration, Instant};

use super::handle::Notice;
use super::occupancy::Occupancy;
use super::snapshot::{LaunchSnapshot, LaunchesSnapshot, StallSnapshot};
use crate::front::links::{Gate, Holder};
use crate::ids::{LinkId, ServiceId, WorkerId};

/// A launch's own limit is up to this share below what was asked for, so that workers that started together are not
/// worn together.
const JITTER: u64 = 10;

/// When a launch is to be looked after.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RecycleLimits {
    /// After so many connections, or up to a tenth fewer.
    pub max_connections: Option<NonZeroU64>,
    /// When it has taken nothing that it was given for so long.
    pub stuck_timeout: Option<Duration>,
}

/// The launches, and what has not been told yet.
#[derive(Debug)]
pub(crate) struct LaunchTable {
    holds: bool,
    recycle: RecycleLimits,
    launches: BTreeMap<WorkerId, Launch>,
    /// How many connections each has.
    pub(super) occupancy: Occupancy,
    /// When each of those that are stalled will be stuck.
    stuck_at: BTreeSet<(Instant, WorkerId)>,
    /// What is to be told, in this order.
    notices: VecDeque<Notice>,
}

#[derive(Debug, Default)]
struct Launch {
    is_released: bool,
    is_retired: bool,
    taken: u64,
    /// Its share of `max_connections`, and how many it may have taken until that is said.
    limit: Option<(u64, u64)>,
    stall: Option<Stall>,
}

/// A launch that has left a connection untaken, and has not moved since.
#[derive(Debug)]
struct Stall {
    /// On so many of its listeners.
    listeners: usize,
    /// Since when it has taken none on any other.
    since: Instant,
    /// When that will be too long.
    stuck_at: Option<Instant>,
}

impl LaunchTable {
    /// No launch yet. If the front `holds` workers, each gets clients once it is released, and otherwise once it
    /// listens.
    pub(crate) fn new(holds: bool, recycle: RecycleLimits, occupancy: Occupancy) -> Self {
        Self {
            holds,
            recycle,
            occupancy,
            launches: BTreeMap::new(),
            stuck_at: BTreeSet::new(),
            notices: VecDeque::new(),
        }
    }

    /// As it is written down.
    pub(super) fn snapshot(&self) -> LaunchesSnapshot {
        LaunchesSnapshot {
            launches: self.launches.iter().map(|(&worker, launch)| launch.snapshot(worker)).collect(),
            occupied: self.occupancy.snapshot(),
            last_given: self.occupancy.last_given(),
            notices: self.notices.iter().copied().collect(),
        }
    }

    /// It stands as it was written down. Before what was not told yet comes what others may have `missed`.
    pub(super) fn resume(&mut self, snapshot: LaunchesSnapshot, missed: impl Iterator<Item = Notice>) {
        let LaunchesSnapshot { launches, occupied: _, last_given: _, notices } = snapshot;
        for launch in launches {
            let (worker, launch) = (launch.worker, Launch::restored(&launch));
            self.watch(worker, None, launch.stuck_at());
            self.launches.insert(worker, launch);
        }
        self.notices.extend(missed.chain(notices));
    }

    /// Changes what is known of a launch that has a listener, or has had one.
    fn change<T>(&mut self, worker: WorkerId, act: impl FnOnce(&mut Launch) -> T) -> Option<T> {
        let launch = self.launches.get_mut(&worker)?;
        let before = launch.stuck_at();
        let result = act(launch);
        let after = launch.stuck_at();
        self.watch(worker, before, after);
        Some(result)
    }

    /// When the launch will be stuck has changed.
    fn watch(&mut self, worker: WorkerId, before: Option<Instant>, after: Option<Instant>) {
        if before != after {
            before.map(|at| self.stuck_at.remove(&(at, worker)));
            after.map(|at| self.stuck_at.insert((at, worker)));
        }
    }

    fn launch(&mut self, worker: WorkerId) -> &mut Launch {
        let most = self.recycle.max_connections;
        self.launches.entry(worker).or_insert_with(|| {
            let limit = most.map(|most| spread(most, fastrand::u64(..)));
            Launch { limit: limit.map(|limit| (limit, limit)), ..Launch::default() }
        })
    }

    /// For whom a channel that this worker attaches now is there.
    pub(crate) fn attaches(&mut self, worker: WorkerId) -> Gate {
        let holds = self.holds;
        match self.launch(worker) {
            Launch { is_retired: true, .. } => Gate::Retired,
            Launch { is_released: false, .. } if holds => Gate::Held,
            Launch { .. } => Gate::Open,
        }
    }

    /// Whether it has a listener, or has had one, and is not gone.
    pub(crate) fn knows(&self, worker: WorkerId) -> bool {
        self.launches.contains_key(&worker)
    }

    /// The worker may be given clients. One that is gone meanwhile is not remembered.
    pub(crate) fn release(&mut self, worker: WorkerId) {
        if let Some(launch) = self.launches.get_mut(&worker) {
            launch.is_released = true;
        }
    }

    /// The worker gets no connection any more: nobody is to look after it.
    pub(crate) fn retire(&mut self, worker: WorkerId) {
        self.launch(worker);
        self.change(worker, |launch| {
            launch.is_retired = true;
            launch.limit = None;
            if let Some(stall) = &mut launch.stall {
                stall.stuck_at = None;
            }
        });
    }

    /// The worker is gone. Returns how many connections it has taken.
    pub(crate) fn forget(&mut self, worker: WorkerId) -> u64 {
        self.occupancy.forget(worker);
        let Some(launch) = self.launches.remove(&worker) else { return 0 };
        self.watch(worker, launch.stuck_at(), None);
        launch.taken
    }

    /// The worker listens.
    pub(crate) fn listens(&mut self, worker: WorkerId, service: ServiceId, link: LinkId, ready: bool) {
        self.notices.push_back(Notice::Listening { worker, service, link, ready });
    }

    /// A connection waits for long in a channel.
    pub(crate) fn slow(&mut self, link: LinkId, holder: Holder) {
        self.notices.push_back(Notice::Slow { link, holder });
    }

    /// The worker has taken a client's connection.
    pub(crate) fn took(&mut self, worker: WorkerId, now: Instant) {
        let stuck_timeout = self.recycle.stuck_timeout;
        let worn = self.change(worker, |launch| {
            launch.taken = launch.taken.saturating_add(1);
            if let Some(stall) = &mut launch.stall {
                stall.since = now;
                stall.stuck_at = stall.stuck_at.and(stuck_timeout).map(|timeout| now + timeout);
            }
            let (share, until) = launch.limit.as_mut()?;
            if launch.taken < *until {
                return None;
            }
            *until = until.saturating_add(*share);
            Some(launch.taken)
        });
        if let Some(connections) = worn.flatten() {
            self.notices.push_back(Notice::ReplaceReason { worker, connections });
        }
    }

    /// A listener of the worker left a connection untaken, and gets none until it moves.
    pub(crate) fn stalls(&mut self, worker: WorkerId, now: Instant) {
        let stuck_timeout = self.recycle.stuck_timeout;
        let is_first = self.change(worker, |launch| {
            if let Some(stall) = &mut launch.stall {
                stall.listeners = stall.listeners.saturating_add(1);
                return false;
            }
            let stuck_at = stuck_timeout.filter(|_| !launch.is_retired).map(|timeout| now + timeout);
            launch.stall = Some(Stall { listeners: 1, since: now, stuck_at });
            true
        });
        if is_first == Some(true) {
            self.notices.push_back(Notice::Stalled { worker });
        }
    }

    /// A listener that was stalled moves again, or is closed.
    pub(crate) fn moves(&mut self, worker: WorkerId) {
        let all_move = self.change(worker, |launch| {
            let Some(stall) = &mut launch.stall else { return false };
            stall.listeners -= 1;
            if stall.listeners > 0 {
                return false;
            }
            launch.stall = None;
            true
        });
        if all_move == Some(true) {
            self.notices.push_back(Notice::Moving { worker });
        }
    }

    /// When [`LaunchTable::tick`] is next needed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stuck_at.first().map(|&(at, _)| at)
    }

    /// Tells who has been stuck for too long, and tells it again when that has lasted as long once more.
    pub(crate) fn tick(&mut self, now: Instant) {
        let Some(timeout) = self.recycle.stuck_timeout else { return };
        let late = self.stuck_at.iter().take_while(|&&(at, _)| at <= now);
        for worker in late.map(|&(_, worker)| worker).collect::<Vec<_>>() {
            let since = self.change(worker, |launch| {
                let stall = launch.stall.as_mut()?;
                stall.stuck_at = Some(now + timeout);
                Some(stall.since)
            });
            if let Some(since) = since.flatten() {
                let time = now.saturating_duration_since(since);
                self.notices.push_back(Notice::Stuck { worker, time });
            }
        }
    }

    /// Whether something is to be told.
    pub(crate) fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// What is to be told next.
    pub(crate) fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }
}

impl Launch {
    fn snapshot(&self, worker: WorkerId) -> LaunchSnapshot {
        let &Launch { is_released, is_retired, taken, limit, ref stall } = self;
        let stall = stall.as_ref().and_then(Stall::snapshot);
        LaunchSnapshot { worker, is_released, is_retired, taken, limit, stall }
    }

    fn restored(snapshot: &LaunchSnapshot) -> Self {
        let &LaunchSnapshot { worker: _, is_released, is_retired, taken, limit, stall } = snapshot;
        Launch { is_released, is_retired, taken, limit, stall: stall.map(Stall::restored) }
    }

    /// When it will have been stuck for too long.
    fn stuck_at(&self) -> Option<Instant> {
        self.stall.as_ref()?.stuck_at
    }
}

impl Stall {
    /// `None` if it moves on all of its listeners, and so is none.
    fn snapshot(&self) -> Option<StallSnapshot> {
        Some(StallSnapshot {
            listeners: NonZeroUsize::new(self.listeners)?,
            since: self.since.into(),
            stuck_at: self.stuck_at.map(Into::into),
        })
    }

    fn restored(StallSnapshot { listeners, since, stuck_at }: StallSnapshot) -> Self {
        Self { listeners: listeners.get(), since: since.into(), stuck_at: stuck_at.map(Into::into) }
    }
}

/// A launch's own share of `most`: by chance, from nine tenths of it to all of it.
fn spread(most: NonZeroU64, chance: u64) -> u64 {
    let most = most.get();
    most - chance % (most / JITTER + 1)
}

#[cfg(test)]
mod tests;
