//! New workers in the place of others: a reload of all, or one that is worn.
//!
//! What is next is decided in [`rollout`](super::rollout); here it is done. One replacement is under way at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::events::{Asker, EventKind, ReplaceReason};
use super::jobs::{Reply, workers};
use super::lifecycle::{Input, Phase, State};
use super::restart::Run;
use super::rollout::{Do, LifeId, Progress, Rollout, Seen};
use super::task::{Mode, Supervisor};
use super::{Failed, Underway, Wanted};
use crate::ids::{Slot, WorkerId};

/// How long a worker whose successor has failed is left alone.
const RETRY: Duration = Duration::from_secs(30);

/// What is being replaced, and what is to be.
#[derive(Default)]
pub(super) struct Replacing {
    now: Option<(Rollout, Cause)>,
    /// Workers that are to be replaced one after the other.
    worn: BTreeMap<Slot, (WorkerId, ReplaceReason)>,
    /// Until when those are left alone whose successors have failed.
    failed: BTreeMap<Slot, Instant>,
}

/// Why workers are replaced.
enum Cause {
    /// Somebody asked for it.
    Reload { by: Asker, reply: Reply, wanted: Wanted },
    /// One worker is worn.
    ReplaceReason,
}

impl Replacing {
    /// Who has asked for the reload that is under way.
    pub(super) fn reload_by(&self) -> Option<&Asker> {
        match &self.now {
            Some((_, Cause::Reload { by, .. })) => Some(by),
            _ => None,
        }
    }
}

impl Supervisor {
    /// Begins to replace every worker.
    pub(super) fn reload(&mut self, wanted: Wanted, by: Asker) -> Underway {
        let (reply, told) = oneshot::channel();
        self.tell(EventKind::ReloadStarted { by: by.to_string() });
        // One worker may be on its way out already; it is replaced with all the others.
        self.give_up_replacements("a reload replaces it");
        // Who will not be wanted any more is not replaced.
        let slots = (1..=self.workers.min(self.workers_after(&wanted))).map(Slot);
        let prove = wanted.plan.rules.restart.min_uptime;
        let rollout = Rollout::new(slots, wanted.reload_parallel, prove);
        self.replacing.now = Some((rollout, Cause::Reload { by, reply, wanted }));
        Underway(told)
    }

    /// How many workers there are once this is in force. A number that was asked for meanwhile stays, unless the
    /// configuration has another one than before.
    fn workers_after(&self, wanted: &Wanted) -> u32 {
        if wanted.workers == self.spec.wanted.workers { self.workers } else { wanted.workers.get() }
    }

    /// Notes that a worker is to be replaced, unless it is being or was tried just now.
    pub(super) fn plan_replacement(&mut self, worker: WorkerId, why: ReplaceReason) {
        let slot = worker.slot;
        let is_online = self.life_of(worker).is_some_and(|life| life.state.phase() == Phase::Online);
        let is_at_rest = self.replacing.failed.get(&slot).is_some_and(|&until| until > Instant::now());
        let is_replaced = self.replacing.now.as_ref().is_some_and(|(rollout, _)| rollout.includes(slot));
        if is_online && !is_at_rest && !is_replaced && self.mode == Mode::Running {
            self.replacing.worn.entry(slot).or_insert((worker, why));
        }
    }

    /// Goes on with the replacement that is under way, and begins the next.
    pub(super) fn replace_on(&mut self) {
        while self.replacing.now.is_some() || self.next_worn() {
            let seen = self.lives_seen();
            let Some((rollout, _)) = &mut self.replacing.now else { continue };
            match rollout.advance(&seen, Instant::now()) {
                Progress::Now(next) if next.is_empty() => return,
                Progress::Now(next) => next.into_iter().for_each(|next| self.replace(next)),
                Progress::Done => self.replaced(),
                Progress::Failed(life) => self.not_replaced(life),
            }
        }
    }

    /// What has gone is not seen: its turn is over.
    fn lives_seen(&self) -> Vec<Seen> {
        let lives = self.lives.iter().filter(|life| life.state != State::Stopped);
        lives.map(|life| life.seen()).collect()
    }

    /// Begins to replace the next worn worker, if it still runs; whether there was one.
    fn next_worn(&mut self) -> bool {
        let Some((slot, (worker, why))) = self.replacing.worn.pop_first() else {
            return false;
        };
        if self.life_of(worker).is_some() {
            self.tell(EventKind::WorkerReplaced { worker: slot.0, reason: why.to_string() });
            self.replacing.now = Some((Rollout::new([slot], 1, Duration::ZERO), Cause::ReplaceReason));
        }
        true
    }

    fn replace(&mut self, next: Do) {
        match next {
            Do::Start(slot) => {
                let plan = match &self.replacing.now {
                    Some((_, Cause::Reload { wanted, .. })) => &wanted.plan,
                    _ => &self.spec.wanted.plan,
                };
                let life = self.begin_life(slot, Run::Trial, Arc::clone(plan));
                if let Some((rollout, _)) = &mut self.replacing.now {
                    rollout.began(slot, life);
                }
            }
            Do::Trust(life) => self.apply(life, Input::Trusted),
            Do::Retire(life) => self.retire(vec![life]),
        }
    }

    fn replaced(&mut self) {
        let Some((rollout, Cause::Reload { reply, wanted, .. })) = self.replacing.now.take() else { return };
        let after = self.workers_after(&wanted);
        let before = std::mem::replace(&mut self.workers, after);
        self.spec.wanted = wanted;
        let surplus: Vec<Slot> = (self.workers + 1..=before).map(Slot).collect();
        self.retire(self.lives_in(&surplus));
        let count = u32::try_from(rollout.len()).unwrap_or(u32::MAX);
        self.tell(EventKind::ReloadDone { workers: count });
        let _ = reply.send(Ok(format!("{} replaced", workers(rollout.len()))));
    }

    /// Rolls back: what is on trial goes, what it should have replaced stays.
    fn not_replaced(&mut self, life: LifeId) {
        let Some((rollout, cause)) = self.replacing.now.take() else { return };
        let failed = self.life(life);
        let (slot, last_lines) = (failed.slot, failed.last_lines());
        let how = failed.reason();
        let (replaced, all) = (rollout.replaced(), rollout.len());
        let kept = if replaced == 0 {
            "the old workers serve on".to_owned()
        } else {
            format!("{replaced} of {all} were replaced before, the other old workers serve on")
        };
        let reason = format!("the new worker {slot} {how}; {kept}");
        self.discard(&rollout);
        match cause {
            Cause::Reload { reply, .. } => {
                self.tell(EventKind::ReloadFailed { reason: reason.clone(), last_lines: last_lines.clone() });
                let _ = reply.send(Err(Failed { reason, last_lines }));
            }
            Cause::ReplaceReason => {
                tracing::error!(worker = %slot, "{reason}; trying again in {RETRY:?} at the earliest");
                self.replacing.failed.insert(slot, Instant::now() + RETRY);
            }
        }
    }

    fn discard(&mut self, rollout: &Rollout) {
        for id in rollout.on_trial() {
            let Some(life) = self.lives.iter().find(|life| life.id == id) else { continue };
            let kill_at = Instant::now() + life.plan.rules.kill_timeout;
            match life.state.phase() {
                // It may have clients by now.
                Phase::Online => self.retire(vec![id]),
                _ => self.apply(id, Input::Stop { kill_at }),
            }
        }
    }

    /// Ends what is under way, and says why to whoever has asked for it.
    pub(super) fn give_up_replacements(&mut self, reason: &str) {
        self.replacing.worn.clear();
        let Some((rollout, cause)) = self.replacing.now.take() else { return };
        self.discard(&rollout);
        if let Cause::Reload { reply, .. } = cause {
            let failed = Failed { reason: reason.to_owned(), last_lines: Vec::new() };
            self.tell(EventKind::ReloadFailed { reason: failed.reason.clone(), last_lines: Vec::new() });
            let _ = reply.send(Err(failed));
        }
    }

    /// When a replacement goes on even if nothing happens.
    pub(super) fn replacing_deadline(&self, now: Instant) -> Option<Instant> {
        let (rollout, _) = self.replacing.now.as_ref()?;
        rollout.deadline(&self.lives_seen(), now)
    }
}
