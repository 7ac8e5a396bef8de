//! What users ask of the workers: reload, restart, scale, stop, start, and the end of all.
//!
//! Each order is either refused at once or begun; when it is done is seen from how the workers stand. How a
//! replacement goes is decided in [`rollout`](super::rollout).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::ends::Reason;
use super::events::{Asker, What, Worn};
use super::lifecycle::{Event, Phase, State};
use super::restart::Run;
use super::rollout::{Do, LifeId, Progress, Rollout, Seen};
use super::task::{Mode, Supervisor};
use super::{FAST, Failed, MOST_WORKERS, Order, Refused, Scale, Stop, Underway, Wanted};
use crate::ids::{Slot, WorkerId};

/// How long a worker whose successor has failed is left alone.
const RETRY: Duration = Duration::from_secs(30);

type Reply = oneshot::Sender<Result<String, Failed>>;

/// An order that was begun, and whom to tell when it is done.
pub(super) struct Job {
    goal: Goal,
    /// What was done, in words.
    done: String,
    reply: Reply,
}

/// When an order is done.
enum Goal {
    /// The workers in these slots are online.
    Online(Vec<Slot>),
    /// Nobody is in these slots any more.
    Empty(Vec<Slot>),
}

/// What is being replaced, and what is to be.
#[derive(Default)]
pub(super) struct Replacing {
    now: Option<(Rollout, Cause)>,
    /// Workers that are to be replaced one after the other.
    worn: BTreeMap<Slot, (WorkerId, Worn)>,
    /// Until when those are left alone whose successors have failed.
    failed: BTreeMap<Slot, Instant>,
}

/// Why workers are replaced.
enum Cause {
    /// Somebody asked for it.
    Reload { by: Asker, reply: Reply, wanted: Wanted },
    /// One worker is worn.
    Worn,
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
    /// Begins what a user asks for.
    pub(super) fn obey(&mut self, order: Order, by: Asker) -> Result<Underway, Refused> {
        if matches!(self.mode, Mode::Closing | Mode::Ending) {
            return Err(Refused::Stopping);
        }
        let is_reload = self.replacing.reload_by().cloned();
        match (order, is_reload) {
            (Order::Stop, _) => Ok(self.stop_all(&by)),
            (_, Some(by)) => Err(Refused::Busy { by }),
            (Order::Start, None) => Ok(self.start_all(&by)),
            (_, None) if self.mode == Mode::Stopped => Err(Refused::Stopped),
            (Order::Reload(wanted), None) => Ok(self.reload(wanted, by)),
            (Order::Restart(slot), None) => self.restart(slot),
            (Order::Scale(scale), None) => self.scale(scale, &by),
        }
    }

    fn reload(&mut self, wanted: Wanted, by: Asker) -> Underway {
        let (reply, told) = oneshot::channel();
        self.tell(What::ReloadStarted { by: by.to_string() });
        // One worker may be on its way out already; it is replaced with all the others.
        self.abandon_replacements();
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

    fn restart(&mut self, slot: Option<Slot>) -> Result<Underway, Refused> {
        if let Some(slot) = slot.filter(|slot| slot.0 == 0 || slot.0 > self.workers) {
            return Err(Refused::NoWorker(slot));
        }
        let slots: Vec<Slot> = slot.map_or_else(|| (1..=self.workers).map(Slot).collect(), |slot| vec![slot]);
        self.abandon_replacements();
        for &slot in &slots {
            self.count_restart(slot, Reason::Command);
        }
        for life in self.lives_in(&slots) {
            // Every empty slot is filled again.
            let kill_at = Instant::now() + self.life(life).plan.rules.kill_timeout;
            self.apply(life, Event::Stop { kill_at });
        }
        let done = match slot {
            Some(slot) => format!("worker {slot} is online again"),
            None => format!("{} online again", workers(slots.len())),
        };
        Ok(self.begin_job(Goal::Online(slots), done))
    }

    fn scale(&mut self, scale: Scale, by: &Asker) -> Result<Underway, Refused> {
        let asked = match scale {
            Scale::To(workers) => i64::from(workers),
            Scale::By(difference) => i64::from(self.workers) + i64::from(difference),
        };
        let wanted = u32::try_from(asked).ok().filter(|wanted| (1..=MOST_WORKERS).contains(wanted));
        let wanted = wanted.ok_or(Refused::OutOfRange { asked })?;
        let before = std::mem::replace(&mut self.workers, wanted);
        self.tell(What::Scaled { workers: wanted, by: by.to_string() });
        let done = format!("{} wanted, {} before", workers(wanted as usize), before);
        let goal = if wanted >= before {
            Goal::Online((1..=wanted).map(Slot).collect())
        } else {
            let slots: Vec<Slot> = (wanted + 1..=before).map(Slot).collect();
            self.retire(self.lives_in(&slots));
            Goal::Empty(slots)
        };
        Ok(self.begin_job(goal, done))
    }

    fn stop_all(&mut self, by: &Asker) -> Underway {
        self.tell(What::AppStopping { by: by.to_string() });
        self.mode = Mode::Stopped;
        self.overtake(&format!("stopped by {by}"));
        let lives: Vec<LifeId> = self.lives.iter().map(|life| life.id).collect();
        self.retire(lives);
        let slots = (1..=self.workers).map(Slot).collect();
        self.begin_job(Goal::Empty(slots), "stopped; the ports stay open, and clients wait".to_owned())
    }

    fn start_all(&mut self, by: &Asker) -> Underway {
        self.tell(What::AppStarted { by: by.to_string() });
        self.mode = Mode::Running;
        let settled = self.lives.iter().filter(|life| life.state.process().is_none());
        for life in settled.map(|life| life.id).collect::<Vec<_>>() {
            self.apply(life, Event::Start(Run::FRESH));
        }
        let done = format!("{} online", workers(self.workers as usize));
        self.begin_job(Goal::Online((1..=self.workers).map(Slot).collect()), done)
    }

    /// Begins the end: what was asked for is given up, and nothing more is taken on.
    pub(super) fn close(&mut self) {
        self.overtake("clusterd is stopping");
        self.mode = match self.mode {
            Mode::Running | Mode::Closing => Mode::Closing,
            Mode::Stopped | Mode::Ending => Mode::Ending,
        };
    }

    /// Ends everything for good. A stronger stop may follow a weaker one.
    pub(super) fn end(&mut self, stop: Stop) {
        self.mode = Mode::Ending;
        self.overtake("clusterd is stopping");
        let event = match stop {
            Stop::Graceful { until } => Event::Retire { until },
            Stop::Fast => Event::Stop { kill_at: Instant::now() + FAST },
        };
        for life in self.lives.iter().map(|life| life.id).collect::<Vec<_>>() {
            self.apply(life, event.clone());
        }
    }

    /// Notes that a worker is to be replaced, unless it is being or was tried just now.
    pub(super) fn plan_replacement(&mut self, worker: WorkerId, why: Worn) {
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
        loop {
            let seen: Vec<Seen> = self.lives_seen();
            let Some((rollout, _)) = &mut self.replacing.now else {
                match self.next_worn() {
                    true => continue,
                    false => return,
                }
            };
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

    fn next_worn(&mut self) -> bool {
        let Some((slot, (worker, why))) = self.replacing.worn.pop_first() else {
            return false;
        };
        if self.life_of(worker).is_some() {
            self.tell(What::WorkerReplaced { worker: slot.0, reason: why.to_string() });
            self.replacing.now = Some((Rollout::new([slot], 1, Duration::ZERO), Cause::Worn));
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
            Do::Trust(life) => self.apply(life, Event::Trusted),
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
        self.tell(What::ReloadDone { workers: count });
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
                self.tell(What::ReloadFailed { reason: reason.clone(), last_lines: last_lines.clone() });
                let _ = reply.send(Err(Failed { reason, last_lines }));
            }
            Cause::Worn => {
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
                _ => self.apply(id, Event::Stop { kill_at }),
            }
        }
    }

    fn abandon_replacements(&mut self) {
        self.replacing.worn.clear();
        if let Some((rollout, _)) = self.replacing.now.take() {
            self.discard(&rollout);
        }
    }

    /// Whatever was asked for before is not done any more.
    fn overtake(&mut self, reason: &str) {
        self.replacing.worn.clear();
        let failed = || Failed { reason: reason.to_owned(), last_lines: Vec::new() };
        if let Some((rollout, cause)) = self.replacing.now.take() {
            self.discard(&rollout);
            if let Cause::Reload { reply, .. } = cause {
                self.tell(What::ReloadFailed { reason: reason.to_owned(), last_lines: Vec::new() });
                let _ = reply.send(Err(failed()));
            }
        }
        for job in self.jobs.drain(..) {
            let _ = job.reply.send(Err(failed()));
        }
    }

    /// When a replacement goes on even if nothing happens.
    pub(super) fn replacing_deadline(&self, now: Instant) -> Option<Instant> {
        let (rollout, _) = self.replacing.now.as_ref()?;
        rollout.deadline(&self.lives_seen(), now)
    }

    fn retire(&mut self, lives: Vec<LifeId>) {
        for life in lives {
            let until = Instant::now() + self.life(life).plan.drain_timeout;
            self.apply(life, Event::Retire { until });
        }
    }

    fn lives_in(&self, slots: &[Slot]) -> Vec<LifeId> {
        self.lives.iter().filter(|life| slots.contains(&life.slot)).map(|life| life.id).collect()
    }

    fn begin_job(&mut self, goal: Goal, done: String) -> Underway {
        let (reply, told) = oneshot::channel();
        self.jobs.push(Job { goal, done, reply });
        Underway(told)
    }

    /// Tells those whose orders are done, or cannot be.
    pub(super) fn finish_jobs(&mut self) {
        for job in std::mem::take(&mut self.jobs) {
            match self.outcome(&job.goal) {
                // Who has asked may have gone.
                _ if job.reply.is_closed() => {}
                Some(Ok(())) => drop(job.reply.send(Ok(job.done))),
                Some(Err(failed)) => drop(job.reply.send(Err(failed))),
                None => self.jobs.push(job),
            }
        }
    }

    fn outcome(&self, goal: &Goal) -> Option<Result<(), Failed>> {
        match goal {
            Goal::Empty(slots) => self.lives_in(slots).is_empty().then_some(Ok(())),
            Goal::Online(slots) => {
                let lives = || self.lives.iter().filter(|life| slots.contains(&life.slot));
                let has_failed = |phase| matches!(phase, Phase::Errored | Phase::WaitingRestart);
                let failed = lives().find(|life| {
                    has_failed(life.state.phase()) && !matches!(life.state, State::Settling { .. })
                });
                if let Some(life) = failed {
                    let reason = format!("worker {} {}", life.slot, life.reason());
                    return Some(Err(Failed { reason, last_lines: life.last_lines() }));
                }
                let online = |slot: &Slot| {
                    lives().any(|life| life.slot == *slot && life.state.phase() == Phase::Online)
                };
                slots.iter().all(online).then_some(Ok(()))
            }
        }
    }
}

fn workers(count: usize) -> String {
    if count == 1 { "1 worker".to_owned() } else { format!("{count} workers") }
}
