//! One instance of a worker: its state, and what is remembered beside it for those who ask.
//!
//! What follows from what is decided in [`lifecycle`](super::lifecycle).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Pid;

use super::ends::{End, Ended};
use super::events::{EventKind, millis, on_one_line, whole_millis};
use super::lifecycle::{Action, Input, Phase, Process, State, step};
use super::rollout::{InstanceId, Standing};
use super::snapshot::{self, InstanceSnapshot, StateSnapshot, Wrong};
use super::{Environment, Plan, StartError, Status};
use crate::carry::NotCarried;
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::logs::LastLines;

/// One instance of a worker, with all its launches.
pub(super) struct Instance {
    id: InstanceId,
    slot: Slot,
    /// How it was begun, and is treated.
    plan: Arc<Plan>,
    state: State,
    /// The ports on which its last process listens, or did.
    listening: Vec<WorkerPort>,
    /// When its process was started.
    started: Option<(Instant, SystemTime)>,
    /// How its last process ended, in words, and the code with which clusterd would exit for it.
    last_end: Option<(String, u8)>,
    /// A process of its last launch runs on out of its group.
    left: bool,
    /// What it writes to standard error.
    output: Option<LastLines>,
    /// The variables that its last process was given.
    environment: Option<Environment>,
}

/// What has come of an input.
pub(super) struct Transition {
    /// What is to be done.
    pub(super) actions: Vec<Action>,
    /// What is told of it, if anything.
    pub(super) event: Option<EventKind>,
    /// The process group that it had before, if it has another one or none now.
    pub(super) group_gone: Option<Pid>,
    /// The process group that it has now, if it had another one or none before.
    pub(super) group_come: Option<Pid>,
}

impl Instance {
    pub(super) fn new(id: InstanceId, slot: Slot, plan: Arc<Plan>) -> Self {
        Self {
            id,
            slot,
            plan,
            state: State::Stopped,
            listening: Vec::new(),
            started: None,
            last_end: None,
            left: false,
            output: None,
            environment: None,
        }
    }

    /// As it is written down, beside the variables that are `common` to all.
    ///
    /// # Errors
    /// It is in a state that passes.
    pub(super) fn snapshot(&self, common: &Environment) -> Result<InstanceSnapshot, NotCarried> {
        Ok(InstanceSnapshot {
            id: self.id.0,
            slot: self.slot,
            state: StateSnapshot::of(&self.state)?,
            listening: self.listening.clone(),
            started: self.started.map(|(instant, time)| (instant.into(), time)),
            last_end: self.last_end.clone(),
            left: self.left,
            environment: self.environment.as_ref().map(|own| snapshot::variables(&own.beside(common))),
        })
    }

    /// As it was written down, by this plan, beside the variables that are `common` to all. What its launch wrote last is taken
    /// out of `output`.
    ///
    /// # Errors
    /// It cannot have been so.
    pub(super) fn restore(
        written: InstanceSnapshot,
        (plan, common): (Arc<Plan>, &Environment),
        output: &mut HashMap<WorkerId, LastLines>,
    ) -> Result<Self, Wrong> {
        let state = written.state.read()?;
        let output = state.process().and_then(|process| output.remove(&process.id));
        Ok(Self {
            id: InstanceId(written.id),
            slot: written.slot,
            plan,
            state,
            listening: written.listening,
            started: written.started.map(|(moment, time)| (moment.into(), time)),
            last_end: written.last_end,
            left: written.left,
            output,
            environment: written.environment.map(|own| common.and(&snapshot::environment(&own))),
        })
    }

    /// The variables of its last launch.
    pub(super) fn environment(&self) -> Option<&Environment> {
        self.environment.as_ref()
    }

    pub(super) fn id(&self) -> InstanceId {
        self.id
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    pub(super) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn listening(&self) -> &[WorkerPort] {
        &self.listening
    }

    pub(super) fn output(&self) -> Option<&LastLines> {
        self.output.as_ref()
    }

    /// The process, if it may be given connections.
    pub(super) fn serving(&self) -> Option<&Process> {
        self.state.serving()
    }

    /// Lets this happen to it.
    pub(super) fn step(&mut self, input: Input, now: Instant) -> Transition {
        let before = std::mem::replace(&mut self.state, State::Stopped);
        let (state, actions) = step(before.clone(), input, &self.plan.rules, now);
        self.state = state;
        let (old, new) = (before.group(), self.state.group());
        if matches!(self.state, State::Launching { .. }) && new != old {
            self.listening.clear();
            self.left = false;
            self.started = Some((now, SystemTime::now()));
        }
        let event = self.news(&before);
        let (group_gone, group_come) = if old == new { (None, None) } else { (old, new) };
        Transition { actions, event, group_gone, group_come }
    }

    /// Notes that its process listens on a port; whether that is new.
    pub(super) fn listens(&mut self, port: WorkerPort) -> bool {
        let is_new = !self.listening.contains(&port);
        if is_new {
            self.listening.push(port);
        }
        is_new
    }

    /// Notes what its new process writes, and was given.
    pub(super) fn launched(&mut self, output: Option<LastLines>, environment: Environment) {
        self.output = output;
        self.environment = Some(environment);
    }

    /// Notes that its process could not be started.
    pub(super) fn not_started(&mut self, error: &StartError) {
        self.last_end = Some((on_one_line(&error.to_string()), error.exit_code()));
    }

    /// As a rollout sees it.
    pub(super) fn standing(&self) -> Standing {
        let since = match self.state {
            State::Online { ready, .. } => Some(ready),
            _ => None,
        };
        Standing { instance: self.id, slot: self.slot, phase: self.state.phase(), since }
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
            environment: process.and_then(|_| self.environment.clone()),
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

    /// Whether a process of its last launch runs on out of its group, as a daemon does.
    pub(super) fn left(&self) -> bool {
        self.left
    }

    /// Notes that one does.
    pub(super) fn has_left(&mut self) {
        self.left = true;
    }

    /// Remembers how its process ended, and whether it was for want of memory.
    pub(super) fn ended(&mut self, how: Ended, out_of_memory: bool) {
        let ran = humantime::format_duration(whole_millis(self.ran()));
        self.last_end = Some(match self.state {
            State::Failing { .. } => (self.was_not_ready(), 1),
            _ if out_of_memory => {
                (format!("{how} after {ran}: the kernel ran out of memory"), how.exit_code())
            }
            _ => (format!("{how} after {ran}"), how.exit_code()),
        });
    }

    /// How long its process has run by now.
    fn ran(&self) -> Duration {
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
    fn news(&self, before: &State) -> Option<EventKind> {
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
            (State::Leaving { .. } | State::Stopping { .. }, phase) if phase != Phase::Stopping => {
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
