//! Where a worker stands, with what belongs to that.
//!
//! What leads from one state to another is not here.

use std::time::Instant;

use rustix::process::Pid;

use super::ending::Ending;
use super::readiness::{Missing, Readiness};
use crate::ids::WorkerId;
use crate::protocol::wire::Token;
use crate::supervisor::ends::{End, Reason};
use crate::supervisor::restart::{Run, Went};

/// A running worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Which launch it is.
    pub id: WorkerId,
    /// Its process, which leads the process group of the same number.
    pub group: Pid,
    /// What its processes show at the attach socket.
    pub token: Token,
    /// What is known by now of how it ends.
    pub ending: Ending,
}

/// How far a worker that drains has been asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Not yet.
    No,
    /// By a signal.
    Signal,
    /// By a message, which nobody but the process on the Node channel got.
    Message,
}

/// Where a worker stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
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
        /// Whether it was asked already.
        asked: Asked,
    },
    /// The process was asked to `disconnect`: it ends by itself once it has nothing more to do.
    Leaving {
        /// The process.
        process: Process,
        /// When it gets the stop signal.
        signal_at: Instant,
        /// When it is killed.
        kill_at: Instant,
    },
    /// The process was asked to end.
    Stopping {
        /// The process.
        process: Process,
        /// How.
        asked: Asked,
        /// When it gets `disconnect` as well, in case that it waits for nothing but its Node channel.
        disconnect_at: Option<Instant>,
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

impl State {
    /// The state without its data.
    pub(crate) fn phase(&self) -> Phase {
        match self {
            State::Stopped | State::Left(_) => Phase::Stopped,
            State::Errored(_) => Phase::Errored,
            State::Starting { .. } | State::Launching { .. } => Phase::Launching,
            State::Online { .. } => Phase::Online,
            State::Settling { .. } | State::WaitingRestart { .. } => Phase::WaitingRestart,
            State::Draining { .. } => Phase::Draining,
            State::Failing { .. }
            | State::Leaving { .. }
            | State::Stopping { .. }
            | State::Orphaned { .. }
            | State::Killed { .. } => Phase::Stopping,
        }
    }

    /// The process, while it may still run.
    pub(crate) fn process(&self) -> Option<&Process> {
        match self {
            State::Launching { process, .. }
            | State::Online { process, .. }
            | State::Failing { process, .. }
            | State::Draining { process, .. }
            | State::Leaving { process, .. }
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

    /// The same, to note what is told of it.
    pub(super) fn process_mut(&mut self) -> Option<&mut Process> {
        match self {
            State::Launching { process, .. }
            | State::Online { process, .. }
            | State::Failing { process, .. }
            | State::Draining { process, .. }
            | State::Leaving { process, .. }
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
    pub(crate) fn serving(&self) -> Option<&Process> {
        match self {
            State::Launching { process, .. } | State::Online { process, .. } => Some(process),
            _ => None,
        }
    }

    /// The launch of which something may still be heard.
    pub(crate) fn launch(&self) -> Option<WorkerId> {
        match self {
            State::Settling { id, .. } => Some(*id),
            _ => self.serving().map(|process| process.id),
        }
    }

    /// The process group, while it may still have members.
    pub(crate) fn group(&self) -> Option<Pid> {
        match self {
            State::Orphaned { group, .. } => Some(*group),
            _ => self.process().map(|process| process.group),
        }
    }

    /// Its run is, or was, a trial.
    pub(crate) fn is_on_trial(&self) -> bool {
        match self {
            State::Starting { run, .. }
            | State::Launching { run, .. }
            | State::Online { run, .. }
            | State::Failing { run, .. }
            | State::Settling { run, .. } => *run == Run::Trial,
            _ => false,
        }
    }

    /// When an [`Input::Tick`](super::Input::Tick) will change something.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            // Nothing tells of a worker without a port but that it runs.
            State::Launching { since, missing, .. } if missing.readiness() == Readiness::Ready => {
                Some(*since)
            }
            State::Launching { ready_by, advise_at, .. } => {
                Some(advise_at.map_or(*ready_by, |advise_at| advise_at.min(*ready_by)))
            }
            State::Failing { kill_at, .. } => *kill_at,
            State::Settling { until, .. }
            | State::WaitingRestart { until, .. }
            | State::Draining { until, .. } => Some(*until),
            State::Leaving { signal_at, .. } => Some(*signal_at),
            State::Stopping { kill_at, disconnect_at, .. } => {
                Some(disconnect_at.map_or(*kill_at, |disconnect_at| disconnect_at.min(*kill_at)))
            }
            State::Orphaned { kill_at, .. } => Some(*kill_at),
            State::Killed { give_up_at, .. } => Some(*give_up_at),
            State::Stopped
            | State::Left(_)
            | State::Errored(_)
            | State::Starting { .. }
            | State::Online { .. } => None,
        }
    }
}

/// A random number from 0 to 1, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chance(pub u16);

impl Chance {
    pub(super) fn part(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

/// A state without its data, as metrics and users see it; the words are PM2's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
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
    pub(crate) const ALL: [Phase; 7] = [
        Phase::Launching,
        Phase::Online,
        Phase::Draining,
        Phase::Stopping,
        Phase::Stopped,
        Phase::WaitingRestart,
        Phase::Errored,
    ];

    /// The value of the `state` label.
    pub(crate) fn label(self) -> &'static str {
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
