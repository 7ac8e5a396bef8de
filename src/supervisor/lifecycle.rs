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

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::ends::{End, Ended, Reason};
use super::restart::{self, Next, Run, Went};
use crate::ids::{WorkerId, WorkerPort};
use crate::protocol::wire::Token;

/// How long a worker may take to listen before something is said about it.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long the kernel may take to carry out SIGKILL before nobody waits for it any more: a process in an
/// uninterruptible system call does not die before that call ends.
pub const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take to hear what a worker that has ended had done.
pub const SETTLING: Duration = Duration::from_secs(2);

/// What holds for every worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
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

/// A running worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Which launch it is.
    pub id: WorkerId,
    /// Its process, which leads the process group of the same number.
    pub group: Pid,
    /// What its processes show at the attach socket.
    pub token: Token,
}

/// Where a worker stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No process, and none wanted.
    Stopped,
    /// It has ended as it was meant to, and stays so.
    Left(End),
    /// It has failed too often, the last time like this.
    Errored(End),
    /// A process is being started.
    Starting {
        /// What this run is worth.
        run: Run,
        /// Why it is another run, if it is.
        again: Option<Reason>,
    },
    /// The process runs and is not ready yet.
    Launching {
        /// The process.
        process: Process,
        /// When it was started.
        since: Instant,
        /// What is missing.
        missing: Missing,
        /// When it must be ready.
        ready_by: Instant,
        /// When to say that it still is not, unless that was said.
        advise_at: Option<Instant>,
        /// What this run is worth.
        run: Run,
    },
    /// The process is ready.
    Online {
        /// The process.
        process: Process,
        /// When it was started.
        since: Instant,
        /// When it was ready.
        ready: Instant,
        /// What this run is worth.
        run: Run,
    },
    /// The process was not ready in time, and was asked to end.
    Failing {
        /// The process.
        process: Process,
        /// When it is killed, unless it was.
        kill_at: Option<Instant>,
        /// What this run is worth.
        run: Run,
    },
    /// The process has ended; whether it had served anybody is being found out.
    Settling {
        /// Which launch it was.
        id: WorkerId,
        /// How it went, as far as it is known.
        went: Went,
        /// What the run was worth.
        run: Run,
        /// How long to wait for that.
        until: Instant,
        /// A random number from 0 to 1.
        chance: Chance,
    },
    /// The next process is not due yet.
    WaitingRestart {
        /// When it is due.
        until: Instant,
        /// What the next run will be worth.
        run: Run,
        /// Why there is one.
        again: Reason,
    },
    /// The process gets no further connection, and finishes those that it has; none will follow it.
    Draining {
        /// The process.
        process: Process,
        /// When it is asked to end all the same.
        until: Instant,
    },
    /// The process group was asked to end.
    Stopping {
        /// The process.
        process: Process,
        /// When it is killed.
        kill_at: Instant,
    },
    /// The process ended as it was asked to; others of its group have not yet.
    Orphaned {
        /// The group's number.
        group: Pid,
        /// When they are killed.
        kill_at: Instant,
    },
    /// The process group was killed, and the process has not been waited for yet.
    Killed {
        /// The process.
        process: Process,
        /// When to stop waiting for it.
        give_up_at: Instant,
    },
}

/// What a worker lacks to be ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The ports on which it does not listen yet.
    pub ports: BTreeSet<WorkerPort>,
    /// Its word that it is ready.
    pub word: bool,
    /// Its answer to a probe.
    pub answer: Answer,
}

/// Whether a worker has answered its probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has, or need not.
    Given,
    /// It was asked.
    Awaited,
    /// It is asked once it has all else.
    NotAskedFor,
}

/// How far a worker is from being ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It has more to do.
    Waiting,
    /// It has done its part, and is to be probed.
    ToBeProbed,
    /// It is: clients may come.
    Ready,
}

impl Missing {
    /// What a worker that was just started lacks.
    fn at_first(rules: &Rules) -> Self {
        let answer = if rules.probes { Answer::NotAskedFor } else { Answer::Given };
        Self { ports: rules.ports.iter().copied().collect(), word: rules.wait_ready, answer }
    }

    /// Whether the worker may be given clients. Nothing else decides it, whoever has said whatever in which order.
    pub fn readiness(&self) -> Readiness {
        match self {
            Missing { ports, word: false, answer } if ports.is_empty() => match answer {
                Answer::Given => Readiness::Ready,
                Answer::Awaited => Readiness::Waiting,
                Answer::NotAskedFor => Readiness::ToBeProbed,
            },
            Missing { .. } => Readiness::Waiting,
        }
    }
}

/// A random number from 0 to 1, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance(pub u16);

impl Chance {
    fn part(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

/// A state without its data, as metrics and users see it; the words are PM2's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Starts, or is not ready yet.
    Launching,
    /// Is ready.
    Online,
    /// Finishes what it has.
    Draining,
    /// Was asked to end.
    Stopping,
    /// Will not be started again.
    Stopped,
    /// Ended, and is started again soon.
    WaitingRestart,
    /// Has failed too often.
    Errored,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 7] = [
        Phase::Launching,
        Phase::Online,
        Phase::Draining,
        Phase::Stopping,
        Phase::Stopped,
        Phase::WaitingRestart,
        Phase::Errored,
    ];

    /// The value of the `state` label.
    pub fn label(self) -> &'static str {
        match self {
            Phase::Launching => "launching",
            Phase::Online => "online",
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
            Phase::Stopped => "stopped",
            Phase::WaitingRestart => "waiting_restart",
            Phase::Errored => "errored",
        }
    }
}

/// What happened to a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
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
pub enum Action {
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

impl State {
    /// The state without its data.
    pub fn phase(&self) -> Phase {
        match self {
            State::Stopped | State::Left(_) => Phase::Stopped,
            State::Errored(_) => Phase::Errored,
            State::Starting { .. } | State::Launching { .. } => Phase::Launching,
            State::Online { .. } => Phase::Online,
            State::Settling { .. } | State::WaitingRestart { .. } => Phase::WaitingRestart,
            State::Draining { .. } => Phase::Draining,
            State::Failing { .. }
            | State::Stopping { .. }
            | State::Orphaned { .. }
            | State::Killed { .. } => Phase::Stopping,
        }
    }

    /// The process, while it may still run.
    pub fn process(&self) -> Option<&Process> {
        match self {
            State::Launching { process, .. }
            | State::Online { process, .. }
            | State::Failing { process, .. }
            | State::Draining { process, .. }
            | State::Stopping { process, .. }
            | State::Killed { process, .. } => Some(process),
            State::Stopped
            | State::Left(_)
            | State::Errored(_)
            | State::Starting { .. }
            | State::Settling { .. }
            | State::WaitingRestart { .. }
            | State::Orphaned { .. } => None,
        }
    }

    /// The process, if it may be given connections.
    pub fn serving(&self) -> Option<&Process> {
        match self {
            State::Launching { process, .. } | State::Online { process, .. } => Some(process),
            _ => None,
        }
    }

    /// The launch of which something may still be heard.
    pub fn launch(&self) -> Option<WorkerId> {
        match self {
            State::Settling { id, .. } => Some(*id),
            _ => self.serving().map(|process| process.id),
        }
    }

    /// The process group, while it may still have members.
    pub fn group(&self) -> Option<Pid> {
        match self {
            State::Orphaned { group, .. } => Some(*group),
            _ => self.process().map(|process| process.group),
        }
    }

    /// Its run is, or was, a trial.
    pub fn is_on_trial(&self) -> bool {
        match self {
            State::Starting { run, .. }
            | State::Launching { run, .. }
            | State::Online { run, .. }
            | State::Failing { run, .. }
            | State::Settling { run, .. } => *run == Run::Trial,
            _ => false,
        }
    }

    /// When a [`Input::Tick`] will change something.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            State::Launching { ready_by, advise_at, .. } => {
                Some(advise_at.map_or(*ready_by, |advise_at| advise_at.min(*ready_by)))
            }
            State::Failing { kill_at, .. } => *kill_at,
            State::Settling { until, .. }
            | State::WaitingRestart { until, .. }
            | State::Draining { until, .. } => Some(*until),
            State::Stopping { kill_at, .. } | State::Orphaned { kill_at, .. } => Some(*kill_at),
            State::Killed { give_up_at, .. } => Some(*give_up_at),
            State::Stopped
            | State::Left(_)
            | State::Errored(_)
            | State::Starting { .. }
            | State::Online { .. } => None,
        }
    }
}

/// What follows when `input` happens to a worker in `state` at `now`.
pub fn step(state: State, input: Input, rules: &Rules, now: Instant) -> (State, Vec<Action>) {
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
                advise_at: Some(now + PATIENCE.min(rules.ready_timeout / 2)),
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
    let killed = State::Killed { process, give_up_at: now + KILL_PATIENCE };
    (killed, vec![Action::Kill(process.group)])
}

#[cfg(test)]
mod tests;
