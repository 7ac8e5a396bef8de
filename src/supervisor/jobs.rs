//! The commands under way: what each waits for, and whom to answer when that is so.
//!
//! When one is done is seen from how the workers stand. Reloads, which have steps of their own, are in
//! [`replacement`](super::replacement).

use tokio::sync::oneshot;

use super::lifecycle::{Phase, State};
use super::rollout::InstanceId;
use super::worker_table::WorkerTable;
use super::{Failed, Underway};
use crate::ids::Slot;

/// Whom to answer when a command is done: what was done, in words.
pub(super) type Reply = oneshot::Sender<Result<String, Failed>>;

/// When a command is done.
pub(super) enum Goal {
    /// The workers in these slots are online.
    Online(Vec<Slot>),
    /// These are gone. Others may be in their slots by then.
    Gone(Vec<InstanceId>),
}

/// A command that was begun.
struct Job {
    goal: Goal,
    /// What was done, in words.
    done: String,
    reply: Reply,
}

/// The commands under way.
#[derive(Default)]
pub(super) struct Jobs(Vec<Job>);

impl Jobs {
    /// Waits for this from now on; `done` is said once it is so.
    pub(super) fn begin(&mut self, goal: Goal, done: String) -> Underway {
        let (reply, answer) = oneshot::channel();
        self.0.push(Job { goal, done, reply });
        Underway(answer)
    }

    /// Whether nothing is waited for.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|job| job.reply.is_closed())
    }

    /// Answers those whose commands are done, or cannot be.
    pub(super) fn finish(&mut self, table: &WorkerTable) {
        for job in std::mem::take(&mut self.0) {
            match job.goal.outcome(table) {
                // Who has asked may have gone.
                _ if job.reply.is_closed() => {}
                Some(Ok(())) => drop(job.reply.send(Ok(job.done))),
                Some(Err(failed)) => drop(job.reply.send(Err(failed))),
                None => self.0.push(job),
            }
        }
    }

    /// Nothing of it is done any more, for this reason.
    pub(super) fn give_up(&mut self, reason: &str) {
        for job in self.0.drain(..) {
            let _ = job.reply.send(Err(Failed { reason: reason.to_owned(), last_lines: Vec::new() }));
        }
    }
}

impl Goal {
    /// `None` while it is neither reached nor out of reach.
    fn outcome(&self, table: &WorkerTable) -> Option<Result<(), Failed>> {
        match self {
            Goal::Gone(instances) => {
                // One that had no process and was started again meanwhile is the same.
                let goes_on = |phase| matches!(phase, Phase::Launching | Phase::Online);
                let is_gone =
                    |id: &InstanceId| table.get(*id).is_none_or(|instance| goes_on(instance.state().phase()));
                instances.iter().all(is_gone).then_some(Ok(()))
            }
            Goal::Online(slots) => {
                let wanted = table.slots();
                if let Some(slot) = slots.iter().find(|slot| !wanted.contains(slot)) {
                    let reason =
                        format!("worker {slot} is not wanted any more: another command came meanwhile");
                    return Some(Err(Failed { reason, last_lines: Vec::new() }));
                }
                let there = || table.iter().filter(|instance| slots.contains(&instance.slot()));
                if let Some(instance) = there().find(|instance| has_failed(instance.state())) {
                    let reason = format!("worker {} {}", instance.slot(), instance.reason());
                    return Some(Err(Failed { reason, last_lines: instance.last_lines() }));
                }
                let is_online = |slot: &Slot| {
                    there().any(|other| other.slot() == *slot && other.state().phase() == Phase::Online)
                };
                slots.iter().all(is_online).then_some(Ok(()))
            }
        }
    }
}

/// One of which is not wholly known how it has ended may have served well.
fn has_failed(state: &State) -> bool {
    matches!(state.phase(), Phase::Errored | Phase::WaitingRestart)
        && !matches!(state, State::Settling { .. })
}

/// So many workers, in words.
pub(super) fn workers(count: u32) -> String {
    if count == 1 { "1 worker".to_owned() } else { format!("{count} workers") }
}
