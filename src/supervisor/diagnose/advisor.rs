//! Looks at workers that do not listen, beside the supervisor's task, and tells the user once.
//!
//! What is seen and said is in [`diagnose`](super); here is only when.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::task::JoinSet;

use super::{Awaited, Findings, Obstacle};
use crate::ids::{Slot, WorkerPort};
use crate::supervisor::Plan;
use crate::supervisor::ends::Ended;

/// What was said so long ago stands right above.
const JUST_NOW: Duration = Duration::from_secs(1);

/// How long a look that is under way may take at the very end.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// How long the same advice is not repeated.
const PAUSE: Duration = Duration::from_secs(60);

/// Looks that are under way, and what was said last.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Advisor {
    looking: JoinSet<(Slot, Findings)>,
    /// A program of the workers that has an io_uring, if one was seen.
    ring: Option<Obstacle>,
    said: Option<(Instant, String)>,
}

impl Advisor {
    /// Remembers that the workers' program has an io_uring.
    pub(in crate::supervisor) fn has_ring(&mut self, ring: Obstacle) {
        self.ring = Some(ring);
    }

    /// Says why a worker ended that has taken no connection, if it is that; whether it is.
    pub(in crate::supervisor) fn blames_ring(&mut self, worker: Slot) -> bool {
        let advice = self.ring.as_ref().map(super::advice_on_ring);
        advice.map(|advice| self.say(worker, advice)).is_some()
    }

    /// Looks at a worker that runs.
    pub(in crate::supervisor) fn look_at(
        &mut self,
        (worker, group): (Slot, Pid),
        (shim, awaited, after): (Option<PathBuf>, Awaited, Duration),
        missing: Vec<WorkerPort>,
        served: Vec<WorkerPort>,
    ) {
        let look = move || super::running(group, (shim.as_deref(), awaited, after), missing, served);
        self.looking.spawn_blocking(move || (worker, look()));
    }

    /// Looks for why a worker ended, while the `others` run.
    pub(in crate::supervisor) fn look_back_at(
        &mut self,
        (worker, how, left): (Slot, Ended, bool),
        plan: Arc<Plan>,
        (missing, served): (Vec<WorkerPort>, Vec<WorkerPort>),
        (shim, others): (Option<PathBuf>, Vec<Pid>),
    ) {
        let look =
            move || super::ended(&plan.spec, (how, left), (missing, served), (shim.as_deref(), &others));
        self.looking.spawn_blocking(move || (worker, look()));
    }

    /// Says what the next look has seen; `None` if none is under way. A future that is dropped loses nothing.
    pub(in crate::supervisor) async fn say_next(&mut self) -> Option<()> {
        let (worker, seen) = self.looking.join_next().await?.ok()?;
        self.say(worker, super::advice(&seen));
        Some(())
    }

    /// Says again what was said last, if that is long ago: a worker is given up for it.
    pub(in crate::supervisor) fn repeat(&mut self, worker: Slot) {
        let now = Instant::now();
        if let Some((when, advice)) = &mut self.said
            && now - *when > JUST_NOW
        {
            tracing::warn!(%worker, "{advice}");
            *when = now;
        }
    }

    /// What was said last, once the looks that are under way have ended. It is worth repeating where clusterd gives up: what
    /// was said at the first of many starts is far above.
    pub(in crate::supervisor) async fn last(&mut self) -> Option<&str> {
        let all = async { while self.say_next().await.is_some() {} };
        // What takes longer is left out.
        let _ = tokio::time::timeout(LAST_LOOK, all).await;
        self.said.as_ref().map(|(_, advice)| advice.as_str())
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
