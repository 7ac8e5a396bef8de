//! The life of one worker: what follows from what, decided without doing it.
//!
//! It starts no process, sends no signal and reads no clock: [`step`] takes the state, what happened and the
//! time, and returns the next state and what to do. That two lives share a slot while one replaces the other is
//! [`rollout`](super::rollout)'s to know.
//!
//! ```text
//!                     launched             ready on every port
//!   Stopped ─ start ─► Starting ─► Launching ─────────────────► Online
//!      ▲                 ▲  │ failed   │ ended    │ too late      │ ended
//!      │           until │  │          ▼          ▼               │
//!      │                 │  │       Settling ◄─ Failing           │
//!      │                 │  │          │ ▲       (ended)          │
//!      │                 │  ▼          ▼ └────────────────────────┘
//!      │          WaitingRestart ◄─────┴──────► Errored, Left
//!      │                              too often, or meant to
//!   any with a process ─ retire ─► Draining ─ ended ─► Stopped
//!                                     │ stop, nobody is connected any more, or time is up
//!   any with a process ─ stop ─► Stopping ─ ended ─► Stopped
//!                                     │  └─ ended, others of its group live ─► Orphaned ─► Stopped
//!                                     └─ deadline ─► Killed ─ ended ─► Stopped
//! ```

mod readiness;
mod state;

use std::time::{Duration, Instant};

use rustix::process::Pid;

pub(crate) use self::readiness::{Answer, Missing, Readiness};
pub(crate) use self::state::{Chance, Phase, Process, State};
use super::ends::{End, Ended, Reason};
use super::restart::{self, Next, Run, Went};
use crate::ids::{WorkerId, WorkerPort};

/// How long a worker may take to listen before something is said about it.
pub(crate) const ADVISE_AFTER: Duration = Duration::from_secs(10);
/// How long the kernel may take to carry out SIGKILL before nobody waits for it any more: a process in an
/// uninterruptible system call does not die before that call ends.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to hear what a worker that has ended had done.
pub(crate) const SETTLING: Duration = Duration::from_secs(2);

/// What holds for every worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// A worker is ready when it listens on all of these.
    pub ports: Vec<WorkerPort>,
    /// It must also say that it is.
    pub wait_ready: bool,
    /// Then it must also answer a probe.
    pub probes: bool,
    /// How long that may take.
    pub ready_timeout: Duration,
    /// How long it may take to end after it was asked to.
    pub kill_timeout: Duration,
    /// Whether and when it is started again.
    pub restart: restart::Policy,
}

/// What happened to a worker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    /// A process is wanted, worth this.
    Start(Run),
    /// The process runs.
    Launched(Process),
    /// The process could not be started.
    LaunchFailed {
        /// A random number.
        chance: Chance,
    },
    /// It listens on a port.
    Listening {
        /// Which launch.
        id: WorkerId,
        /// The port.
        port: WorkerPort,
    },
    /// It says that it is ready.
    Ready(WorkerId),
    /// It has answered the probe.
    Probed(WorkerId),
    /// It has proved itself: it is a worker like any other.
    Trusted,
    /// A process ended and was waited for.
    Ended {
        /// Which.
        group: Pid,
        /// How.
        how: Ended,
        /// Others of its process group still live.
        others: bool,
        /// A random number.
        chance: Chance,
    },
    /// What the worker had not taken is taken back, and this is how many connections it had.
    Forgotten {
        /// Which launch.
        id: WorkerId,
        /// How many.
        served: u64,
    },
    /// The process group has no member any more.
    GroupEmpty(Pid),
    /// No process is wanted any more, and what runs gets nothing more to do: it has until then to finish what it has.
    Retire {
        /// When.
        until: Instant,
    },
    /// A retired worker has no client any more.
    Drained(WorkerId),
    /// No process is wanted any more: ask what runs to end, and kill at `kill_at` what still runs then. Said
    /// again, only an earlier `kill_at` changes anything.
    Stop {
        /// When.
        kill_at: Instant,
    },
    /// Time has passed.
    Tick,
}

/// What to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a process and report [`Input::Launched`] or [`Input::LaunchFailed`].
    Launch,
    /// Count a start after the first.
    Count(Reason),
    /// Ask every process of the group to end.
    Terminate(Pid),
    /// Kill every process of the group.
    Kill(Pid),
    /// Take back what was handed to the worker and not taken, and report [`Input::Forgotten`].
    Forget(WorkerId),
    /// Give it no further connection, and report [`Input::Drained`] when it has none.
    Drain(Process),
    /// Probe the worker until it answers, and report [`Input::Probed`].
    Probe(WorkerId),
    /// It may be given connections, if it was kept from them.
    Release(WorkerId),
    /// Say why the worker may not listen yet.
    Advise(Process),
}

/// When something is said about a worker that is not ready: before it is stopped for that.
pub(crate) fn advise_after(rules: &Rules) -> Duration {
    ADVISE_AFTER.min(rules.ready_timeout / 2)
}

/// What follows when `input` happens to a worker in `state` at `now`.
pub(crate) fn step(state: State, input: Input, rules: &Rules, now: Instant) -> (State, Vec<Action>) {
    match input {
        Input::Start(run) => start(state, run),
        Input::Launched(process) => launched(state, process, rules, now),
        Input::LaunchFailed { chance } => launch_failed(state, chance, rules, now),
        Input::Listening { id, port } => came(state, id, now, |missing| {
            missing.ports.remove(&port);
        }),
        Input::Ready(id) => came(state, id, now, |missing| missing.word = false),
        Input::Probed(id) => came(state, id, now, |missing| {
            if missing.answer == Answer::Awaited {
                missing.answer = Answer::Given;
            }
        }),
        Input::Trusted => trusted(state),
        Input::Ended { group, how, others, chance }
            if state.process().is_some_and(|process| process.group == group) =>
        {
            ended(state, how, others, chance, (rules, now))
        }
        Input::Forgotten { id, served } => forgotten(state, id, served, rules, now),
        Input::GroupEmpty(empty) => match state {
            State::Orphaned { group, .. } if group == empty => (State::Stopped, vec![]),
            state => (state, vec![]),
        },
        Input::Retire { until } => retire(state, until),
        Input::Drained(id) => drained(state, id, rules, now),
        Input::Stop { kill_at } => stop(state, kill_at),
        Input::Tick => tick(state, rules, now),
        Input::Ended { .. } => (state, vec![]),
    }
}

fn start(state: State, run: Run) -> (State, Vec<Action>) {
    match state {
        State::Stopped | State::Left(_) | State::Errored(_) => {
            (State::Starting { run, again: None }, vec![Action::Launch])
        }
        State::WaitingRestart { again, .. } => {
            (State::Starting { run, again: Some(again) }, vec![Action::Launch])
        }
        state => (state, vec![]),
    }
}

fn launched(state: State, process: Process, rules: &Rules, now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Starting { run, again } => {
            let launching = State::Launching {
                process,
                since: now,
                missing: Missing::at_first(rules),
                ready_by: now + rules.ready_timeout,
                advise_at: Some(now + advise_after(rules)),
                run,
            };
            (launching, again.map(Action::Count).into_iter().collect())
        }
        // It was stopped while it was being started: nothing of it must stay.
        State::Stopped => kill(process, now),
        state => (state, vec![Action::Kill(process.group)]),
    }
}

fn launch_failed(state: State, chance: Chance, rules: &Rules, now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Starting { run, .. } => {
            let (ran, was_online, has_served) = (Duration::ZERO, false, false);
            let went = Went { end: End::NotStarted, ran, was_online, has_served };
            (after(run, went, chance, rules, now), vec![])
        }
        state => (state, vec![]),
    }
}

/// Something that was missing has come.
fn came(state: State, id: WorkerId, now: Instant, what: impl FnOnce(&mut Missing)) -> (State, Vec<Action>) {
    match state {
        State::Launching { process, since, mut missing, ready_by, advise_at, run } if process.id == id => {
            what(&mut missing);
            let actions = match missing.readiness() {
                Readiness::Ready => return online(process, since, now, run),
                Readiness::ToBeProbed => {
                    missing.answer = Answer::Awaited;
                    vec![Action::Probe(id)]
                }
                Readiness::Waiting => vec![],
            };
            (State::Launching { process, since, missing, ready_by, advise_at, run }, actions)
        }
        state => (state, vec![]),
    }
}

fn online(process: Process, since: Instant, ready: Instant, run: Run) -> (State, Vec<Action>) {
    (State::Online { process, since, ready, run }, vec![Action::Release(process.id)])
}

fn trusted(state: State) -> (State, Vec<Action>) {
    match state {
        State::Online { process, since, ready, run } => {
            (State::Online { process, since, ready, run: run.proved() }, vec![])
        }
        state => (state, vec![]),
    }
}

fn ended(
    state: State,
    how: Ended,
    others: bool,
    chance: Chance,
    (rules, now): (&Rules, Instant),
) -> (State, Vec<Action>) {
    let (process, since, run, was_online) = match state {
        State::Launching { process, since, run, .. } => (process, Some(since), run, false),
        State::Online { process, since, run, .. } => (process, Some(since), run, true),
        State::Failing { process, run, .. } => (process, None, run, false),
        State::Draining { process, .. } => {
            let rest = others.then_some(Action::Terminate(process.group));
            let actions = rest.into_iter().chain([Action::Forget(process.id)]).collect();
            return (orphaned(process, others, now + rules.kill_timeout), actions);
        }
        State::Stopping { process, kill_at } => {
            return (orphaned(process, others, kill_at), vec![Action::Forget(process.id)]);
        }
        State::Killed { process, .. } => return (State::Stopped, vec![Action::Forget(process.id)]),
        state => return (state, vec![]),
    };
    let end = if since.is_some() { End::Ended(how) } else { End::Unready };
    let ran = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    let went = Went { end, ran, was_online, has_served: false };
    let settling = State::Settling { id: process.id, went, run, until: now + SETTLING, chance };
    let rest = others.then_some(Action::Kill(process.group));
    (settling, rest.into_iter().chain([Action::Forget(process.id)]).collect())
}

fn orphaned(process: Process, others: bool, kill_at: Instant) -> State {
    if others { State::Orphaned { group: process.group, kill_at } } else { State::Stopped }
}

fn forgotten(state: State, id: WorkerId, served: u64, rules: &Rules, now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Settling { id: settling, went, run, chance, .. } if settling == id => {
            let went = Went { has_served: served > 0, ..went };
            (after(run, went, chance, rules, now), vec![])
        }
        state => (state, vec![]),
    }
}

fn after(run: Run, went: Went, chance: Chance, rules: &Rules, now: Instant) -> State {
    match restart::next(&rules.restart, run, went, chance.part()) {
        Next::Again { run, after } => {
            State::WaitingRestart { until: now + after, run, again: went.end.into() }
        }
        Next::Stay => State::Left(went.end),
        Next::GiveUp => State::Errored(went.end),
    }
}

fn retire(state: State, until: Instant) -> (State, Vec<Action>) {
    match state {
        State::Launching { process, .. } | State::Online { process, .. } => {
            (State::Draining { process, until }, vec![Action::Drain(process)])
        }
        State::Draining { process, until: before } => {
            (State::Draining { process, until: until.min(before) }, vec![])
        }
        // It was asked to end already.
        State::Failing { process, .. } => (State::Stopping { process, kill_at: until }, vec![]),
        state if state.group().is_none() => (State::Stopped, vec![]),
        state => (state, vec![]),
    }
}

fn drained(state: State, id: WorkerId, rules: &Rules, now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Draining { process, .. } if process.id == id => terminate(process, now + rules.kill_timeout),
        state => (state, vec![]),
    }
}

fn stop(state: State, kill_at: Instant) -> (State, Vec<Action>) {
    match state {
        State::Launching { process, .. }
        | State::Online { process, .. }
        | State::Failing { process, .. }
        | State::Draining { process, .. } => terminate(process, kill_at),
        State::Stopping { process, kill_at: before } if kill_at < before => terminate(process, kill_at),
        State::Orphaned { group, kill_at: before } if kill_at < before => {
            (State::Orphaned { group, kill_at }, vec![Action::Terminate(group)])
        }
        state if state.group().is_none() => (State::Stopped, vec![]),
        state => (state, vec![]),
    }
}

fn tick(state: State, rules: &Rules, now: Instant) -> (State, Vec<Action>) {
    if state.deadline().is_none_or(|deadline| now < deadline) {
        return (state, vec![]);
    }
    match state {
        State::Launching { process, ready_by, run, .. } if ready_by <= now => {
            let kill_at = Some(now + rules.kill_timeout);
            (State::Failing { process, kill_at, run }, vec![Action::Terminate(process.group)])
        }
        State::Launching { process, since, missing, ready_by, run, .. } => {
            let told = State::Launching { process, since, missing, ready_by, advise_at: None, run };
            (told, vec![Action::Advise(process)])
        }
        State::Failing { process, run, .. } => {
            (State::Failing { process, kill_at: None, run }, vec![Action::Kill(process.group)])
        }
        State::Settling { run, went, chance, .. } => (after(run, went, chance, rules, now), vec![]),
        State::WaitingRestart { run, again, .. } => {
            (State::Starting { run, again: Some(again) }, vec![Action::Launch])
        }
        State::Draining { process, .. } => terminate(process, now + rules.kill_timeout),
        State::Stopping { process, .. } => kill(process, now),
        State::Orphaned { group, .. } => (State::Stopped, vec![Action::Kill(group)]),
        State::Killed { process, .. } => (State::Stopped, vec![Action::Forget(process.id)]),
        state => (state, vec![]),
    }
}

fn terminate(process: Process, kill_at: Instant) -> (State, Vec<Action>) {
    (State::Stopping { process, kill_at }, vec![Action::Terminate(process.group)])
}

fn kill(process: Process, now: Instant) -> (State, Vec<Action>) {
    let killed = State::Killed { process, give_up_at: now + KILL_TIMEOUT };
    (killed, vec![Action::Kill(process.group)])
}

#[cfg(test)]
mod tests;
