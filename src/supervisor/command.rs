//! What can be asked of an app, and how it is answered: refused, under way, done or failed.
//!
//! The words that both sides use; whether a command is accepted, and what it does, is decided elsewhere.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Environment;
use super::events::Asker;
use super::signal_name::NamedSignal;
use crate::ids::Slot;

/// How long a worker may take to end when the stop is a fast one.
pub(crate) const FAST: Duration = Duration::from_secs(1);

/// What can be asked of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Replace every worker, each by a new one that is ready before the old one drains.
    Reload,
    /// The same, with what workers inherit from now on instead of what they did.
    ReloadWith(Environment),
    /// End every worker, or this one, and start it again.
    Restart(Option<Slot>),
    /// End every worker and start it again, with what workers inherit from now on.
    RestartWith(Environment),
    /// Have more or fewer workers.
    Scale(Scale),
    /// End all workers, or this one. The ports are kept, and refuse clients once no worker is left.
    Stop(Option<Slot>),
    /// End all workers; clients may come, and wait until workers are started again.
    Hold,
    /// Start them again after that, or those that are errored or stopped.
    Start(Option<Slot>),
    /// Start them again after that, with what workers inherit from now on; those of an app that is not stopped are replaced.
    StartWith(Environment),
    /// Send this signal to the process that leads each worker, or this one.
    Signal(Option<Slot>, NamedSignal),
    /// Count the restarts of all workers, or of this one, from 0 again.
    Reset(Option<Slot>),
    /// Become the clusterd of this file, or of the one that has the name of this program now, in the same process.
    Upgrade(Option<PathBuf>),
}

/// An order to replace clusterd itself, which is not the supervisor's to carry out.
#[derive(Debug)]
pub(crate) struct UpgradeOrder {
    /// The program; `None` for what has the name of this one now.
    pub program: Option<PathBuf>,
    /// Who wants it.
    pub by: Asker,
    /// What is told when the new one is about to take over, or why it does not.
    pub reply: oneshot::Sender<Result<String, Failed>>,
}

/// How many workers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// So many.
    To(u32),
    /// So many more or fewer.
    By(i32),
}

/// Why a command is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Another one is under way.
    #[error("a reload by {by} is under way; wait for it, or stop it with `stop`")]
    Busy {
        /// Who has begun it.
        by: Asker,
    },
    /// clusterd stops.
    #[error("clusterd is stopping")]
    Stopping,
    /// There is nothing to reload or scale.
    #[error("the app is stopped; start it first")]
    Stopped,
    /// A number of workers that cannot be.
    #[error("{asked} workers requested; must be between 1 and {MOST_WORKERS}")]
    OutOfRange {
        /// What was asked for.
        asked: i64,
    },
    /// The configuration was changed, and is wrong now.
    #[error("invalid configuration; the old one stays in force: {0}")]
    Configuration(String),
    /// clusterd is being replaced.
    #[error("an upgrade of clusterd is under way")]
    Upgrading,
    /// There is no worker with this number.
    #[error("there is no worker {0}")]
    NoWorker(Slot),
}

/// The most workers that an app can have.
pub(crate) const MOST_WORKERS: u32 = 1024;

/// Why a command that was begun did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Failed {
    /// What went wrong.
    pub reason: String,
    /// The last lines that the worker which failed has written to standard error.
    pub last_lines: Vec<String>,
}

/// A command under way. [`Handle::events`](super::Handle::events) reports what happens meanwhile. Dropping it does not stop it.
#[derive(Debug)]
pub(crate) struct Underway(pub(super) oneshot::Receiver<Result<String, Failed>>);

impl Underway {
    /// One that has ended already.
    pub(super) fn ended(how: Result<String, String>) -> Self {
        let (reply, answer) = oneshot::channel();
        let _ = reply.send(how.map_err(|reason| Failed { reason, last_lines: Vec::new() }));
        Self(answer)
    }

    /// Waits for the end; a sentence about what was done.
    ///
    /// # Errors
    /// What went wrong, and what the worker said last.
    pub(crate) async fn done(self) -> Result<String, Failed> {
        let ended = Failed { reason: "clusterd has ended".to_owned(), last_lines: Vec::new() };
        self.0.await.unwrap_or(Err(ended))
    }
}

/// How the workers are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// They get no further connection. Each is asked to end when it has none any more, or at `until`; what still
    /// runs [`Rules::kill_timeout`](super::lifecycle::Rules::kill_timeout) later is killed.
    Graceful {
        /// When.
        until: Instant,
    },
    /// Ask them to end, and kill after [`FAST`] what still runs.
    Fast,
}
