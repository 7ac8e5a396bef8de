//! The life of one worker slot: what follows from what, decided without doing it.
//!
//! It starts no process, sends no signal and reads no clock: [`step`] takes the state, what happened and the
//! time, and returns the next state and what to do.
//!
//! ```text
//!                     launched            listens on every port
//!   Stopped ─ start ─► Starting ─► Launching ─────────────────► Online
//!                        ▲  │ failed   │ ended                    │ ended
//!                  until │  ▼          ▼                          │
//!                     WaitingRestart ◄────────────────────────────┘
//!
//!   any with a process ─ drain ─► Draining ─ ended ─► Stopped
//!                                   │ stop
//!   any with a process ─ stop ─► Stopping ─ ended ─► Stopped
//!                                   │  └─ ended, others of its group live ─► Orphaned ─► Stopped
//!                                   └─ deadline ─► Killed ─ ended ─► Stopped
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::restart::{self, Streak};
use crate::ids::{WorkerId, WorkerPort};
use crate::protocol::wire::Token;

/// How long a worker may take to listen before something is said about it.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long the kernel may take to carry out SIGKILL before nobody waits for it any more: a process in an
/// uninterruptible system call does not die before that call ends.
pub const KILL_PATIENCE: Duration = Duration::from_secs(2);

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

/// Where a slot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No process, and none wanted.
    Stopped,
    /// A process is being started.
    Starting {
        /// Bad runs so far.
        streak: Streak,
        /// How the run before ended, if there was one.
        previous: Option<Reason>,
    },
    /// The process runs and does not listen on every port yet.
    Launching {
        /// The process.
        process: Process,
        /// When it was started.
        since: Instant,
        /// Ports on which it does not listen yet.
        waiting_for: BTreeSet<WorkerPort>,
        /// When to say that it still does not listen, unless that was said.
        advise_at: Option<Instant>,
        /// Bad runs before this one.
        streak: Streak,
    },
    /// The process listens on every port.
    Online {
        /// The process.
        process: Process,
        /// When it was started.
        since: Instant,
        /// Bad runs before this one.
        streak: Streak,
    },
    /// The process ended, and the next is not due yet.
    WaitingRestart {
        /// When it is due.
        until: Instant,
        /// Bad runs so far.
        streak: Streak,
        /// How the last run ended.
        previous: Reason,
    },
    /// The process gets no further connection and may end by itself; none will follow it.
    Draining {
        /// The process.
        process: Process,
        /// When it is killed.
        kill_at: Instant,
    },
    /// The process group was asked to end (SIGTERM).
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

/// A state without its data, as metrics and users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Starts, or does not listen everywhere yet.
    Launching,
    /// Listens on every port.
    Online,
    /// Finishes what it has.
    Draining,
    /// Was asked to end.
    Stopping,
    /// Will not be started again.
    Stopped,
    /// Ended too soon, and waits.
    WaitingRestart,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 6] = [
        Phase::Launching,
        Phase::Online,
        Phase::Draining,
        Phase::Stopping,
        Phase::Stopped,
        Phase::WaitingRestart,
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
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ended::Code(code) => write!(f, "exited with code {code}"),
            Ended::Signal(number) => match signal_name(number) {
                Some(name) => write!(f, "was ended by {name}"),
                None => write!(f, "was ended by signal {number}"),
            },
        }
    }
}

/// The names of the signals that end processes, as signal(7) has them.
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

/// Why a worker is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It exited with code 0.
    Exit,
    /// It exited with another code.
    Crash,
    /// A signal ended it.
    Signal,
    /// It could not be started.
    Failed,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 4] = [Reason::Exit, Reason::Crash, Reason::Signal, Reason::Failed];

    /// The value of the `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Exit => "exit",
            Reason::Crash => "crash",
            Reason::Signal => "signal",
            Reason::Failed => "failed",
        }
    }
}

impl From<Ended> for Reason {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Code(0) => Reason::Exit,
            Ended::Code(_) => Reason::Crash,
            Ended::Signal(_) => Reason::Signal,
        }
    }
}

/// What happened to a slot.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A process is wanted.
    Start,
    /// The process runs; it is expected to listen on these ports.
    Launched {
        /// The process.
        process: Process,
        /// The ports.
        ports: Vec<WorkerPort>,
    },
    /// The process could not be started.
    LaunchFailed {
        /// A random number from 0 to 1.
        chance: f64,
    },
    /// The worker listens on a port.
    Listening {
        /// Which launch.
        id: WorkerId,
        /// The port.
        port: WorkerPort,
    },
    /// A process ended and was waited for.
    Ended {
        /// Which.
        group: Pid,
        /// How.
        how: Ended,
        /// Others of its process group still live.
        others: bool,
        /// A random number from 0 to 1.
        chance: f64,
    },
    /// The process group has no member any more.
    GroupEmpty {
        /// Which.
        group: Pid,
    },
    /// No process is wanted any more, and what runs gets nothing more to do: it may end by itself until `kill_at`.
    Drain {
        /// When.
        kill_at: Instant,
    },
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
    /// Start a process and report [`Event::Launched`] or [`Event::LaunchFailed`].
    Launch,
    /// Count a start after the first.
    Count(Reason),
    /// Ask every process of the group to end.
    Terminate(Pid),
    /// Kill every process of the group.
    Kill(Pid),
    /// Take back what was handed to the worker and not taken.
    Forget(WorkerId),
    /// Say why the worker may not listen yet.
    Advise(Process),
}

impl State {
    /// The state without its data.
    pub fn phase(&self) -> Phase {
        match self {
            State::Stopped => Phase::Stopped,
            State::Starting { .. } | State::Launching { .. } => Phase::Launching,
            State::Online { .. } => Phase::Online,
            State::WaitingRestart { .. } => Phase::WaitingRestart,
            State::Draining { .. } => Phase::Draining,
            State::Stopping { .. } | State::Orphaned { .. } | State::Killed { .. } => Phase::Stopping,
        }
    }

    /// The process, while it may still run.
    pub fn process(&self) -> Option<&Process> {
        match self {
            State::Launching { process, .. }
            | State::Online { process, .. }
            | State::Draining { process, .. }
            | State::Stopping { process, .. }
            | State::Killed { process, .. } => Some(process),
            State::Stopped
            | State::Starting { .. }
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

    /// The process group, while it may still have members.
    pub fn group(&self) -> Option<Pid> {
        match self {
            State::Orphaned { group, .. } => Some(*group),
            _ => self.process().map(|process| process.group),
        }
    }

    /// When the process was started, unless it is being stopped.
    pub fn since(&self) -> Option<Instant> {
        match self {
            State::Launching { since, .. } | State::Online { since, .. } => Some(*since),
            _ => None,
        }
    }

    /// When a [`Event::Tick`] will change something.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            State::Launching { advise_at, .. } => *advise_at,
            State::WaitingRestart { until, .. } => Some(*until),
            State::Draining { kill_at, .. }
            | State::Stopping { kill_at, .. }
            | State::Orphaned { kill_at, .. } => Some(*kill_at),
            State::Killed { give_up_at, .. } => Some(*give_up_at),
            State::Stopped | State::Starting { .. } | State::Online { .. } => None,
        }
    }
}

/// What follows when `event` happens to a slot in `state` at `now`.
pub fn step(state: State, event: Event, now: Instant) -> (State, Vec<Action>) {
    match event {
        Event::Start => start(state),
        Event::Launched { process, ports } => launched(state, process, &ports, now),
        Event::LaunchFailed { chance } => launch_failed(state, chance, now),
        Event::Listening { id, port } => (listening(state, id, port), vec![]),
        Event::Ended { group, how, others, chance }
            if state.process().is_some_and(|process| process.group == group) =>
        {
            ended(state, how, others, chance, now)
        }
        Event::GroupEmpty { group: empty } => match state {
            State::Orphaned { group, .. } if group == empty => (State::Stopped, vec![]),
            state => (state, vec![]),
        },
        Event::Drain { kill_at } => (drain(state, kill_at), vec![]),
        Event::Stop { kill_at } => stop(state, kill_at),
        Event::Tick => tick(state, now),
        Event::Ended { .. } => (state, vec![]),
    }
}

fn start(state: State) -> (State, Vec<Action>) {
    match state {
        State::Stopped => {
            let starting = State::Starting { streak: Streak::default(), previous: None };
            (starting, vec![Action::Launch])
        }
        state => (state, vec![]),
    }
}

fn launched(state: State, process: Process, ports: &[WorkerPort], now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Starting { streak, previous } => {
            let launching = State::Launching {
                process,
                since: now,
                waiting_for: ports.iter().copied().collect(),
                advise_at: Some(now + PATIENCE),
                streak,
            };
            (launching, previous.map(Action::Count).into_iter().collect())
        }
        // It was stopped while it was being started: nothing of it must stay.
        State::Stopped => kill(process, now),
        state => (state, vec![Action::Kill(process.group)]),
    }
}

fn launch_failed(state: State, chance: f64, now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Starting { streak, .. } => {
            let (streak, delay) = restart::after(streak, Duration::ZERO, chance);
            let waiting = State::WaitingRestart { until: now + delay, streak, previous: Reason::Failed };
            (waiting, vec![])
        }
        state => (state, vec![]),
    }
}

fn listening(state: State, id: WorkerId, port: WorkerPort) -> State {
    match state {
        State::Launching { process, since, mut waiting_for, advise_at, streak } if process.id == id => {
            waiting_for.remove(&port);
            if waiting_for.is_empty() {
                return State::Online { process, since, streak };
            }
            State::Launching { process, since, waiting_for, advise_at, streak }
        }
        state => state,
    }
}

fn ended(state: State, how: Ended, others: bool, chance: f64, now: Instant) -> (State, Vec<Action>) {
    match state {
        State::Launching { process, since, streak, .. } | State::Online { process, since, streak } => {
            let (streak, delay) = restart::after(streak, now.saturating_duration_since(since), chance);
            let waiting = State::WaitingRestart { until: now + delay, streak, previous: how.into() };
            let rest = others.then_some(Action::Kill(process.group));
            (waiting, rest.into_iter().chain([Action::Forget(process.id)]).collect())
        }
        State::Draining { process, kill_at } | State::Stopping { process, kill_at } => {
            let left = match others {
                true => State::Orphaned { group: process.group, kill_at },
                false => State::Stopped,
            };
            (left, vec![Action::Forget(process.id)])
        }
        State::Killed { process, .. } => (State::Stopped, vec![Action::Forget(process.id)]),
        state => (state, vec![]),
    }
}

fn drain(state: State, kill_at: Instant) -> State {
    match state {
        State::Launching { process, .. } | State::Online { process, .. } => {
            State::Draining { process, kill_at }
        }
        State::Starting { .. } | State::WaitingRestart { .. } => State::Stopped,
        state => state,
    }
}

fn stop(state: State, kill_at: Instant) -> (State, Vec<Action>) {
    match state {
        State::Launching { process, .. } | State::Online { process, .. } => {
            (State::Stopping { process, kill_at }, vec![Action::Terminate(process.group)])
        }
        State::Draining { process, kill_at: before } => {
            let kill_at = kill_at.min(before);
            (State::Stopping { process, kill_at }, vec![Action::Terminate(process.group)])
        }
        State::Stopping { process, kill_at: before } if kill_at < before => {
            (State::Stopping { process, kill_at }, vec![Action::Terminate(process.group)])
        }
        State::Orphaned { group, kill_at: before } if kill_at < before => {
            (State::Orphaned { group, kill_at }, vec![Action::Terminate(group)])
        }
        State::Stopped | State::Starting { .. } | State::WaitingRestart { .. } => (State::Stopped, vec![]),
        state => (state, vec![]),
    }
}

fn tick(state: State, now: Instant) -> (State, Vec<Action>) {
    if state.deadline().is_none_or(|deadline| now < deadline) {
        return (state, vec![]);
    }
    match state {
        State::Launching { process, since, waiting_for, streak, .. } => {
            let told = State::Launching { process, since, waiting_for, advise_at: None, streak };
            (told, vec![Action::Advise(process)])
        }
        State::WaitingRestart { streak, previous, .. } => {
            let starting = State::Starting { streak, previous: Some(previous) };
            (starting, vec![Action::Launch])
        }
        State::Draining { process, .. } | State::Stopping { process, .. } => kill(process, now),
        State::Orphaned { group, .. } => (State::Stopped, vec![Action::Kill(group)]),
        State::Killed { process, .. } => (State::Stopped, vec![Action::Forget(process.id)]),
        state => (state, vec![]),
    }
}

fn kill(process: Process, now: Instant) -> (State, Vec<Action>) {
    let killed = State::Killed { process, give_up_at: now + KILL_PATIENCE };
    (killed, vec![Action::Kill(process.group)])
}

#[cfg(test)]
mod tests;
