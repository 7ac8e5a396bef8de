//! Looks at workers that do not listen, beside the supervisor's task, and tells the user once.
//!
//! What is seen and said is in [`diagnose`](super); here is only when.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::task::JoinSet;

use super::Findings;
use crate::ids::{Slot, WorkerPort};
use crate::settings::WorkerCommand;
use crate::supervisor::ends::Ended;

/// How long the same advice is not repeated.
const PAUSE: Duration = Duration::from_secs(60);

/// Looks that are under way, and what was said last.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Advisor {
    looking: JoinSet<(Slot, Findings)>,
    said: Option<(Instant, String)>,
}

impl Advisor {
    /// Looks at a worker that runs.
    pub(in crate::supervisor) fn look_at(
        &mut self,
        (worker, group): (Slot, Pid),
        (shim, wait_ready): (Option<PathBuf>, bool),
        missing: Vec<WorkerPort>,
        served: Vec<WorkerPort>,
    ) {
        // It only has to answer its probe, and why it does not is told by that.
        if missing.is_empty() && !wait_ready {
            return;
        }
        let look = move || (worker, super::running(group, (shim.as_deref(), wait_ready), missing, served));
        self.looking.spawn_blocking(look);
    }

    /// Looks for why a worker ended, while the `others` run.
    pub(in crate::supervisor) fn look_back_at(
        &mut self,
        (worker, how): (Slot, Ended),
        command: WorkerCommand,
        missing: Vec<WorkerPort>,
        others: Vec<Pid>,
    ) {
        let look = move || (worker, super::ended(&command, how, missing, &others));
        self.looking.spawn_blocking(look);
    }

    /// Says what the next look has seen; `None` if none is under way. A future that is dropped loses nothing.
    pub(in crate::supervisor) async fn say_next(&mut self) -> Option<()> {
        let (worker, seen) = self.looking.join_next().await?.ok()?;
        self.say(worker, super::advice(&seen));
        Some(())
    }

    /// Workers that run the same program have the same trouble: one of them is enough.
    fn say(&mut self, worker: Slot, advice: String) {
        let now = Instant::now();
        if self.said.as_ref().is_some_and(|(when, said)| *said == advice && now - *when < PAUSE) {
            return;
        }
        tracing::warn!(%worker, "{advice}");
        self.said = Some((now, advice));
    }
}
