//! A worker as the task keeps it: its state, and what is remembered beside it for those who ask.
//!
//! What follows from what is decided in [`lifecycle`](super::lifecycle).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::ends::{End, Ended};
use super::events::{EventKind, millis, whole_millis};
use super::lifecycle::{Phase, State};
use super::rollout::{LifeId, Seen};
use super::{Plan, Status};
use crate::ids::{Slot, WorkerPort};
use crate::logs::LastLines;

/// One life of a worker.
pub(super) struct Instance {
    pub(super) id: LifeId,
    pub(super) slot: Slot,
    /// How it was begun, and is treated.
    pub(super) plan: Arc<Plan>,
    pub(super) state: State,
    /// The ports on which its last process listens, or did.
    pub(super) listening: Vec<WorkerPort>,
    /// When its process was started.
    pub(super) started: Option<(Instant, SystemTime)>,
    /// How its last process ended, in words, and the code with which clusterd would exit for it.
    pub(super) last_end: Option<(String, u8)>,
    /// What it writes to standard error.
    pub(super) output: Option<LastLines>,
}

impl Instance {
    pub(super) fn new(id: LifeId, slot: Slot, plan: Arc<Plan>) -> Self {
        Self {
            id,
            slot,
            plan,
            state: State::Stopped,
            listening: Vec::new(),
            started: None,
            last_end: None,
            output: None,
        }
    }

    /// As a rollout sees it.
    pub(super) fn seen(&self) -> Seen {
        let since = match self.state {
            State::Online { ready, .. } => Some(ready),
            _ => None,
        };
        Seen { life: self.id, slot: self.slot, phase: self.state.phase(), since }
    }

    /// As the rest of the program sees it.
    pub(super) fn status(&self, restarts: u64) -> Status {
        let process = self.state.process();
        Status {
            slot: self.slot,
            phase: self.state.phase(),
            running: process.map(|process| (process.id, process.group)),
            listening: if process.is_some() { self.listening.clone() } else { Vec::new() },
            since: process.and(self.started).map(|(_, time)| time),
            restarts,
            last_end: self.last_end.as_ref().map(|(words, _)| words.clone()),
            last_lines: if process.is_none() { self.last_lines() } else { Vec::new() },
        }
    }

    /// What its last process has written last.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.output.as_ref().map(LastLines::lines).unwrap_or_default()
    }

    /// The ports on which its process does not listen.
    pub(super) fn missing(&self) -> Vec<WorkerPort> {
        let ports = self.plan.spec.ports.iter().copied();
        ports.filter(|port| !self.listening.contains(port)).collect()
    }

    /// Remembers how its process ended, and whether it was for want of memory.
    pub(super) fn ended(&mut self, how: Ended, out_of_memory: bool) {
        let ran = humantime::format_duration(whole_millis(self.ran()));
        self.last_end = Some(match self.state {
            State::Failing { .. } => (self.was_not_ready(), 1),
            _ if out_of_memory => {
                (format!("{how} after {ran}: the kernel had no more memory for it"), how.exit_code())
            }
            _ => (format!("{how} after {ran}"), how.exit_code()),
        });
    }

    /// How long its process has run by now.
    pub(super) fn ran(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }

    fn was_not_ready(&self) -> String {
        format!("was not ready within {}", humantime::format_duration(self.plan.rules.ready_timeout))
    }

    /// How its process has ended, or why it is to, in words.
    pub(super) fn reason(&self) -> String {
        match (&self.state, &self.last_end) {
            (State::Failing { .. }, _) => self.was_not_ready(),
            (_, Some((words, _))) => words.clone(),
            (_, None) => "ended".to_owned(),
        }
    }

    /// What is told of it when its state was `before`, if anything.
    pub(super) fn news(&self, before: &State) -> Option<EventKind> {
        let worker = self.slot.0;
        let pid = |state: &State| state.process().map_or(0, |process| process.group.as_raw_pid());
        let (old, new) = (pid(before), pid(&self.state));
        Some(match (&self.state, before.phase()) {
            (State::Launching { .. }, _) if old == 0 => EventKind::WorkerStarted { worker, pid: new },
            (State::Online { .. }, Phase::Launching) => EventKind::WorkerOnline { worker, pid: new },
            (State::Failing { .. }, Phase::Launching) => {
                EventKind::WorkerFailed { worker, pid: new, reason: self.reason() }
            }
            (State::Draining { .. }, Phase::Launching | Phase::Online) => {
                EventKind::WorkerDraining { worker, pid: new }
            }
            (State::Stopping { .. }, phase) if phase != Phase::Stopping => {
                EventKind::WorkerStopping { worker, pid: new }
            }
            (State::Settling { .. } | State::Stopped | State::Orphaned { .. }, _) if old != 0 => {
                let expected = !matches!(self.state, State::Settling { .. });
                let (how, ran_ms) = (self.reason(), millis(self.ran()));
                EventKind::WorkerEnded { worker, pid: old, how, ran_ms, expected }
            }
            (State::WaitingRestart { until, .. }, _) if !matches!(before, State::WaitingRestart { .. }) => {
                let wait = until.saturating_duration_since(Instant::now());
                EventKind::WorkerRestarts { worker, reason: self.reason(), in_ms: millis(wait) }
            }
            // Of one on trial, that the replacement has failed is told instead.
            (State::Errored(_), phase) if phase != Phase::Errored && !before.is_on_trial() => {
                EventKind::WorkerErrored { worker, reason: self.reason(), last_lines: self.last_lines() }
            }
            _ => return None,
        })
    }

    /// The code with which clusterd exits if it gives up because of this worker; `None` if it has not ended for
    /// good.
    pub(super) fn verdict(&self) -> Option<(Severity, u8)> {
        let code = self.last_end.as_ref().map_or(1, |&(_, code)| code);
        match self.state {
            State::Errored(_) => Some((Severity::Errored, code.max(1))),
            State::Left(End::Ended(_)) if code == 0 => Some((Severity::Fine, 0)),
            State::Left(_) => Some((Severity::Left, code)),
            _ => None,
        }
    }
}

/// How bad an end for good is: the worst one decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Fine,
    Left,
    Errored,
}
