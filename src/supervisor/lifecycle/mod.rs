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
//!                                     │ nobody is connected any more, or time is up
//!                                     ├─ Node without a handler ─► Leaving ─ ended ─► Stopped
//!                                     ▼                               │ signal_at
//!   any with a process ─ stop ─► Stopping ◄───────────────────────────┘
//!                                     ├─ ended ─► Stopped
//!                                     ├─ ended, others of its group live ─► Orphaned ─► Stopped
//!                                     └─ deadline ─► Killed ─ ended ─► Stopped
//! ```

mod ending;
mod readiness;
mod state;

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use self::ending::Way;
pub(crate) use self::ending::{Ending, OnChannel, Signals, StopAt, StopRules};
pub(crate) use self::readiness::{Answer, Missing, Readiness};
pub(crate) use self::state::{Asked, Chance, Phase, Process, State};
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
    /// How it is asked to end.
    pub stop: StopRules,
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
    /// Somebody speaks on its Node channel, or nobody does any more.
    Speaks {
        /// Which launch.
        id: WorkerId,
        /// Who.
        on_channel: OnChannel,
    },
    /// The process on its Node channel catches these signals by now.
    Catches {
        /// Which launch.
        id: WorkerId,
        /// All of them.
        signals: Signals,
    },
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
    /// Nothing is on its way to a retired worker any more.
    Retired(WorkerId),
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
    /// Ask every process of the group to end, by this signal.
    Terminate(Pid, Signal),
    /// Ask the process on the worker's Node channel to end, by the message `shutdown`.
    SendShutdown(WorkerId),
    /// Ask the process on the worker's Node channel to `disconnect` once nothing but that channel keeps it.
    DisconnectWhenIdle(WorkerId),
    /// Ask the process on the worker's Node channel to `disconnect`.
    Disconnect(WorkerId),
    /// Kill every process of the group.
    Kill(Pid),
    /// Take back what was handed to the worker and not taken, and report [`Input::Forgotten`].
    Forget(WorkerId),
    /// Give it no further connection, and report [`Input::Retired`] when none is on its way to it any more.
    Retire(WorkerId),
    /// Report [`Input::Drained`] when it has no connection.
    AwaitDrained(WorkerId),
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
        Input::Speaks { id, on_channel } => speaks(state, id, on_channel, rules, now),
        Input::Catches { id, signals } => catches(state, id, signals),
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
        Input::Retired(id) => retired(state, id, rules),
        Input::Drained(id) => drained(state, id, rules, now),
        Input::Stop { kill_at } => stop(state, kill_at, rules, now),
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

/// The process on the worker's Node channel has come or gone. One that has gone because it was asked to `disconnect` may
/// have something left to do, and if nothing is known of it, it gets as long for that as after the stop signal.
fn speaks(
    mut state: State,
    id: WorkerId,
    on_channel: OnChannel,
    rules: &Rules,
    now: Instant,
) -> (State, Vec<Action>) {
    let Some(process) = state.process_mut().filter(|process| process.id == id) else {
        return (state, vec![]);
    };
    let before = std::mem::replace(&mut process.ending.on_channel, on_channel);
    if let State::Leaving { signal_at, kill_at, .. } = &mut state
        && (before, on_channel) == (OnChannel::Unknown, OnChannel::Nobody)
    {
        *signal_at = now + rules.kill_timeout;
        *kill_at = *signal_at + rules.kill_timeout;
    }
    (state, vec![])
}

fn catches(mut state: State, id: WorkerId, signals: Signals) -> (State, Vec<Action>) {
    if let Some(process) = state.process_mut().filter(|process| process.id == id) {
        process.ending.catches = signals;
    }
    (state, vec![])
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
        State::Draining { process, asked, .. } => {
            return left(process, others, asked, now + rules.kill_timeout, rules);
        }
        State::Leaving { process, .. } => {
            return left(process, others, Asked::No, now + rules.kill_timeout, rules);
        }
        State::Stopping { process, asked, kill_at, .. } => {
            return left(process, others, asked, kill_at, rules);
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

/// A process that was to end has ended. Others of its group are asked to, if they were not.
fn left(
    process: Process,
    others: bool,
    asked: Asked,
    kill_at: Instant,
    rules: &Rules,
) -> (State, Vec<Action>) {
    let Process { id, group, .. } = process;
    if !others {
        return (State::Stopped, vec![Action::Forget(id)]);
    }
    let rest = (asked != Asked::Signal).then_some(Action::Terminate(group, rules.stop.signal));
    (State::Orphaned { group, kill_at }, rest.into_iter().chain([Action::Forget(id)]).collect())
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
            (State::Draining { process, until, asked: Asked::No }, vec![Action::Retire(process.id)])
        }
        State::Draining { process, until: before, asked } => {
            (State::Draining { process, until: until.min(before), asked }, vec![])
        }
        // It was asked to end already.
        State::Failing { process, .. } => {
            let asked = Asked::Signal;
            (State::Stopping { process, asked, disconnect_at: None, kill_at: until }, vec![])
        }
        state if state.group().is_none() => (State::Stopped, vec![]),
        state => (state, vec![]),
    }
}

fn retired(state: State, id: WorkerId, rules: &Rules) -> (State, Vec<Action>) {
    match state {
        State::Draining { process, until, asked } if process.id == id => {
            let (asked, request) = match (rules.stop.at, process.way_out_early(&rules.stop)) {
                (StopAt::Drain, Some(way)) => request(process, way),
                (StopAt::Drain, None) | (StopAt::Drained, _) => (asked, None),
            };
            let actions = request.into_iter().chain([Action::AwaitDrained(id)]).collect();
            (State::Draining { process, until, asked }, actions)
        }
        state => (state, vec![]),
    }
}

fn drained(state: State, id: WorkerId, rules: &Rules, now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Draining { process, until, asked } if process.id == id => {
            has_finished((process, until, asked), rules, now)
        }
        state => (state, vec![]),
    }
}

/// A worker has finished with its clients, or has had its time for that.
fn has_finished(
    (process, until, asked): (Process, Instant, Asked),
    rules: &Rules,
    now: Instant,
) -> (State, Vec<Action>) {
    let kill_at = now + rules.kill_timeout;
    if asked != Asked::No {
        return stopping(process, asked, kill_at, now);
    }
    match process.way_out(&rules.stop) {
        Way::Disconnect => {
            // Clients that stayed until the end of the drain leave the app no time of it.
            let signal_at = until.max(now + rules.kill_timeout / 2);
            let kill_at = until.max(now) + rules.kill_timeout;
            (State::Leaving { process, signal_at, kill_at }, vec![Action::Disconnect(process.id)])
        }
        way => asked_by(way, process, kill_at, now),
    }
}

fn stop(state: State, kill_at: Instant, rules: &Rules, now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Launching { process, .. }
        | State::Online { process, .. }
        | State::Failing { process, .. }
        | State::Leaving { process, .. } => {
            asked_by(process.way_out_at_once(&rules.stop), process, kill_at, now)
        }
        State::Draining { process, asked, .. } => {
            asked_by(asked_again(process, asked, rules), process, kill_at, now)
        }
        State::Stopping { process, asked, kill_at: before, .. } if kill_at < before => {
            asked_by(asked_again(process, asked, rules), process, kill_at, now)
        }
        State::Orphaned { group, kill_at: before } if kill_at < before => {
            (State::Orphaned { group, kill_at }, vec![Action::Terminate(group, rules.stop.signal)])
        }
        state if state.group().is_none() => (State::Stopped, vec![]),
        state => (state, vec![]),
    }
}

/// Whoever did not heed a message gets the signal.
fn asked_again(process: Process, asked: Asked, rules: &Rules) -> Way {
    match asked {
        Asked::Message => Way::Signal(rules.stop.signal),
        Asked::No | Asked::Signal => process.way_out_at_once(&rules.stop),
    }
}

fn tick(state: State, rules: &Rules, now: Instant) -> (State, Vec<Action>) {
    if state.deadline().is_none_or(|deadline| now < deadline) {
        return (state, vec![]);
    }
    match state {
        State::Launching { process, since, missing, run, .. } if missing.readiness() == Readiness::Ready => {
            online(process, since, now, run)
        }
        State::Launching { process, ready_by, run, .. } if ready_by <= now => {
            let kill_at = Some(now + rules.kill_timeout);
            let (_, request) = request(process, process.way_out_at_once(&rules.stop));
            (State::Failing { process, kill_at, run }, request.into_iter().collect())
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
        State::Draining { process, until, asked } => has_finished((process, until, asked), rules, now),
        State::Leaving { process, kill_at, .. } => {
            // It was asked to disconnect before.
            let (asked, disconnect_at) = (Asked::Signal, None);
            let signal = Action::Terminate(process.group, rules.stop.signal);
            (State::Stopping { process, asked, disconnect_at, kill_at }, vec![signal])
        }
        State::Stopping { process, asked, disconnect_at: Some(_), kill_at } if now < kill_at => {
            let stopping = State::Stopping { process, asked, disconnect_at: None, kill_at };
            (stopping, vec![Action::Disconnect(process.id)])
        }
        State::Stopping { process, .. } => kill(process, now),
        State::Orphaned { group, .. } => (State::Stopped, vec![Action::Kill(group)]),
        State::Killed { process, .. } => (State::Stopped, vec![Action::Forget(process.id)]),
        state => (state, vec![]),
    }
}

/// Asks a worker to end in this way.
fn asked_by(way: Way, process: Process, kill_at: Instant, now: Instant) -> (State, Vec<Action>) {
    let (asked, request) = request(process, way);
    let (stopping, actions) = stopping(process, asked, kill_at, now);
    (stopping, request.into_iter().chain(actions).collect())
}

fn request(process: Process, way: Way) -> (Asked, Option<Action>) {
    match way {
        Way::Signal(signal) => (Asked::Signal, Some(Action::Terminate(process.group, signal))),
        Way::Message => (Asked::Message, Some(Action::SendShutdown(process.id))),
        Way::Disconnect => (Asked::No, Some(Action::Disconnect(process.id))),
    }
}

/// A worker that was asked to end. One on a Node channel is asked to `disconnect` as well, since its handler may have closed
/// all that it has, and only the channel keep its event loop: as soon as that is seen, and in the middle of its time at the
/// latest.
fn stopping(process: Process, asked: Asked, kill_at: Instant, now: Instant) -> (State, Vec<Action>) {
    let is_on_channel = process.ending.on_channel != OnChannel::Nobody;
    let disconnect_at = is_on_channel.then(|| now + kill_at.saturating_duration_since(now) / 2);
    let actions = is_on_channel.then_some(Action::DisconnectWhenIdle(process.id)).into_iter().collect();
    (State::Stopping { process, asked, disconnect_at, kill_at }, actions)
}

fn kill(process: Process, now: Instant) -> (State, Vec<Action>) {
    let killed = State::Killed { process, give_up_at: now + KILL_TIMEOUT };
    (killed, vec![Action::Kill(process.group)])
}

#[cfg(test)]
mod tests;
