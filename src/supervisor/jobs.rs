//! What users ask of the workers: reload, restart, scale, stop, start, and the end of all.
//!
//! Each order is either refused at once or begun; when it is done is seen from how the workers stand. Reloads, and
//! whatever else puts new workers in the place of others, are in [`replacement`](super::replacement).

use std::time::Instant;

use tokio::sync::oneshot;

use super::ends::Reason;
use super::events::{Asker, EventKind};
use super::lifecycle::{Input, Phase, State};
use super::restart::Run;
use super::rollout::LifeId;
use super::task::{Mode, Supervisor};
use super::{FAST, Failed, MOST_WORKERS, Order, Refused, Scale, Stop, Underway};
use crate::ids::Slot;

pub(super) type Reply = oneshot::Sender<Result<String, Failed>>;

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

    fn restart(&mut self, slot: Option<Slot>) -> Result<Underway, Refused> {
        if let Some(slot) = slot.filter(|slot| slot.0 == 0 || slot.0 > self.workers) {
            return Err(Refused::NoWorker(slot));
        }
        let slots: Vec<Slot> = slot.map_or_else(|| (1..=self.workers).map(Slot).collect(), |slot| vec![slot]);
        self.give_up_replacements("it is restarted");
        for &slot in &slots {
            self.count_restart(slot, Reason::Command);
        }
        for life in self.lives_in(&slots) {
            // Every empty slot is filled again.
            let kill_at = Instant::now() + self.life(life).plan.rules.kill_timeout;
            self.apply(life, Input::Stop { kill_at });
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
        self.tell(EventKind::Scaled { workers: wanted, by: by.to_string() });
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
        self.tell(EventKind::AppStopping { by: by.to_string() });
        self.mode = Mode::Stopped;
        self.overtake(&format!("stopped by {by}"));
        let lives: Vec<LifeId> = self.lives.iter().map(|life| life.id).collect();
        self.retire(lives);
        let slots = (1..=self.workers).map(Slot).collect();
        self.begin_job(Goal::Empty(slots), "stopped; the ports stay open, and clients wait".to_owned())
    }

    fn start_all(&mut self, by: &Asker) -> Underway {
        self.tell(EventKind::AppStarted { by: by.to_string() });
        self.mode = Mode::Running;
        let settled = self.lives.iter().filter(|life| life.state.process().is_none());
        for life in settled.map(|life| life.id).collect::<Vec<_>>() {
            self.apply(life, Input::Start(Run::FRESH));
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
            Stop::Graceful { until } => Input::Retire { until },
            Stop::Fast => Input::Stop { kill_at: Instant::now() + FAST },
        };
        for life in self.lives.iter().map(|life| life.id).collect::<Vec<_>>() {
            self.apply(life, event.clone());
        }
    }

    /// Whatever was asked for before is not done any more.
    fn overtake(&mut self, reason: &str) {
        self.give_up_replacements(reason);
        for job in self.jobs.drain(..) {
            let _ = job.reply.send(Err(Failed { reason: reason.to_owned(), last_lines: Vec::new() }));
        }
    }

    pub(super) fn retire(&mut self, lives: Vec<LifeId>) {
        for life in lives {
            let until = Instant::now() + self.life(life).plan.drain_timeout;
            self.apply(life, Input::Retire { until });
        }
    }

    pub(super) fn lives_in(&self, slots: &[Slot]) -> Vec<LifeId> {
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

pub(super) fn workers(count: usize) -> String {
    if count == 1 { "1 worker".to_owned() } else { format!("{count} workers") }
}
