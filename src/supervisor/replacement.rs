//! New workers in the place of others: a reload of all, or one that is replaced for a reason of its own.
//!
//! What is next is decided in [`rollout`](super::rollout); here it is done. One replacement is under way at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::events::{Asker, EventKind, ReplaceReason};
use super::jobs::{self, Reply};
use super::lifecycle::{Input, Phase};
use super::restart::Run;
use super::rollout::{InstanceId, Parallel, Progress, Rollout, RolloutAction};
use super::workers::Workers;
use super::{DesiredState, Failed, Underway};
use crate::ids::{Slot, WorkerId};

/// How long a worker whose successor has failed is left alone.
const RETRY: Duration = Duration::from_secs(30);

/// What is being replaced, and what is to be.
#[derive(Default)]
pub(super) struct Replacements {
    now: Option<(Rollout, Cause)>,
    /// Workers that are to be replaced one after the other.
    planned: BTreeMap<Slot, (WorkerId, ReplaceReason)>,
    /// Until when those are left alone whose successors have failed.
    resting: BTreeMap<Slot, Instant>,
}

/// Why workers are replaced.
enum Cause {
    /// Somebody asked for it.
    Reload { by: Asker, reply: Reply, wanted: DesiredState },
    /// One worker has a reason of its own.
    OneWorker,
}

impl Replacements {
    /// Who has asked for the reload that is under way.
    pub(super) fn reload_by(&self) -> Option<&Asker> {
        match &self.now {
            Some((_, Cause::Reload { by, .. })) => Some(by),
            _ => None,
        }
    }

    /// Whether nothing is replaced, nor is to be.
    pub(super) fn is_empty(&self) -> bool {
        self.now.is_none() && self.planned.is_empty()
    }

    /// Begins to replace every worker; `before` is what was wanted up to now.
    pub(super) fn reload(
        &mut self,
        workers: &mut Workers,
        before: &DesiredState,
        (wanted, by): (DesiredState, Asker),
    ) -> Underway {
        let (reply, answer) = oneshot::channel();
        workers.tell(EventKind::ReloadStarted { by: by.to_string() });
        // One worker may be on its way out already; it is replaced with all the others.
        self.give_up(workers, "a reload replaces it");
        // Who will not be wanted any more is not replaced.
        let count = workers.table().wanted().min(count_after(workers, before, &wanted));
        let prove = wanted.plan.rules.restart.min_uptime;
        let slots = workers.table().slots().into_iter().filter(|slot| slot.0 <= count);
        let rollout = Rollout::new(slots, wanted.reload_parallel, prove);
        self.now = Some((rollout, Cause::Reload { by, reply, wanted }));
        Underway(answer)
    }

    /// Plans to replace a worker, unless it is being or was tried just now.
    pub(super) fn plan(&mut self, workers: &Workers, worker: WorkerId, reason: ReplaceReason) {
        let slot = worker.slot;
        let instance = workers.table().serving(worker);
        let is_online = instance.is_some_and(|instance| instance.state().phase() == Phase::Online);
        let rests = self.resting.get(&slot).is_some_and(|&until| until > Instant::now());
        let is_replaced = self.now.as_ref().is_some_and(|(rollout, _)| rollout.includes(slot));
        if is_online && !rests && !is_replaced {
            self.planned.entry(slot).or_insert((worker, reason));
        }
    }

    /// Goes on with the replacement that is under way, and begins the next. What a reload puts in force is `wanted`
    /// once it is done.
    pub(super) fn advance(&mut self, workers: &mut Workers, wanted: &mut DesiredState) {
        while self.now.is_some() || self.begin_planned(workers) {
            let Some((rollout, _)) = &mut self.now else { continue };
            match rollout.advance(&workers.table().standings(), Instant::now()) {
                Progress::Now(next) if next.is_empty() => return,
                Progress::Now(next) => next.into_iter().for_each(|next| self.perform(workers, wanted, next)),
                Progress::Done => self.done(workers, wanted),
                Progress::Failed(instance) => self.failed(workers, instance),
            }
        }
    }

    /// Begins to replace the next of the planned workers, if it still runs; whether there was one.
    fn begin_planned(&mut self, workers: &Workers) -> bool {
        let Some((slot, (worker, reason))) = self.planned.pop_first() else {
            return false;
        };
        if workers.table().serving(worker).is_some() {
            workers.tell(EventKind::WorkerReplaced { worker: slot.0, reason: reason.to_string() });
            self.now = Some((Rollout::new([slot], Parallel::Auto, Duration::ZERO), Cause::OneWorker));
        }
        true
    }

    fn perform(&mut self, workers: &mut Workers, wanted: &DesiredState, next: RolloutAction) {
        match next {
            RolloutAction::Start(slot) => {
                let Some((rollout, cause)) = &mut self.now else { return };
                let plan = match cause {
                    Cause::Reload { wanted, .. } => &wanted.plan,
                    Cause::OneWorker => &wanted.plan,
                };
                rollout.began(slot, workers.start(slot, Run::Trial, Arc::clone(plan)));
            }
            RolloutAction::Trust(instance) => workers.apply(instance, Input::Trusted),
            RolloutAction::Retire(instance) => workers.retire(vec![instance]),
        }
    }

    fn done(&mut self, workers: &mut Workers, before: &mut DesiredState) {
        let Some((rollout, Cause::Reload { reply, wanted, .. })) = self.now.take() else { return };
        let count = count_after(workers, before, &wanted);
        *before = wanted;
        let surplus: Vec<Slot> = (count + 1..=workers.resize(count)).map(Slot).collect();
        workers.retire(workers.table().ids_in(&surplus));
        let replaced = u32::try_from(rollout.len()).unwrap_or(u32::MAX);
        workers.tell(EventKind::ReloadDone { workers: replaced });
        let _ = reply.send(Ok(format!("{} replaced", jobs::workers(replaced))));
    }

    /// Rolls back: what is on trial goes, what it should have replaced stays.
    fn failed(&mut self, workers: &mut Workers, id: InstanceId) {
        let Some((rollout, cause)) = self.now.take() else { return };
        let Some(instance) = workers.table().get(id) else { return };
        let (slot, how, last_lines) = (instance.slot(), instance.reason(), instance.last_lines());
        let reason = format!("the new worker {slot} {how}; {}", kept(&rollout));
        discard(workers, &rollout);
        match cause {
            Cause::Reload { reply, .. } => {
                fail(workers, reply, Failed { reason, last_lines });
            }
            Cause::OneWorker => {
                tracing::error!(worker = %slot, "{reason}; trying again in {RETRY:?} at the earliest");
                self.resting.insert(slot, Instant::now() + RETRY);
            }
        }
    }

    /// Ends what is under way, and says why to whoever has asked for it.
    pub(super) fn give_up(&mut self, workers: &mut Workers, reason: &str) {
        self.planned.clear();
        let Some((rollout, cause)) = self.now.take() else { return };
        discard(workers, &rollout);
        if let Cause::Reload { reply, .. } = cause {
            fail(workers, reply, Failed { reason: reason.to_owned(), last_lines: Vec::new() });
        }
    }

    /// When a replacement goes on even if nothing happens.
    pub(super) fn deadline(&self, workers: &Workers) -> Option<Instant> {
        let (rollout, _) = self.now.as_ref()?;
        rollout.deadline(&workers.table().standings())
    }
}

/// How many workers there are once this is in force. A number that was asked for meanwhile stays, unless the
/// configuration has another one than before.
pub(super) fn count_after(workers: &Workers, before: &DesiredState, after: &DesiredState) -> u32 {
    if after.workers == before.workers { workers.table().wanted() } else { after.workers.get() }
}

fn kept(rollout: &Rollout) -> String {
    match rollout.replaced() {
        0 => "the old workers keep serving".to_owned(),
        replaced => {
            let all = rollout.len();
            format!("{replaced} of {all} workers were already replaced; the other old workers keep serving")
        }
    }
}

fn discard(workers: &mut Workers, rollout: &Rollout) {
    for id in rollout.on_trial() {
        let Some(instance) = workers.table().get(id) else { continue };
        match instance.state().phase() {
            // It may have clients by now.
            Phase::Online => workers.retire(vec![id]),
            _ => workers.stop(vec![id]),
        }
    }
}

fn fail(workers: &Workers, reply: Reply, failed: Failed) {
    let Failed { reason, last_lines } = failed.clone();
    workers.tell(EventKind::ReloadFailed { reason, last_lines });
    let _ = reply.send(Err(failed));
}
