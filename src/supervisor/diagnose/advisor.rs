//! Looks at workers that do not listen, beside the supervisor's task, and tells the user once.
//!
//! What is seen and said is in [`diagnose`](super); here is only when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::task::JoinSet;

use super::{Awaited, Findings, Obstacle};
use crate::ids::{Slot, WorkerPort};
use crate::supervisor::ends::Ended;
use crate::supervisor::{AttachEnv, Plan};
use crate::sys::blocking;

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

    /// Such a program, if one was seen: why a worker ended that has taken no connection.
    pub(in crate::supervisor) fn ring(&self) -> Option<&Obstacle> {
        self.ring.as_ref()
    }

    /// Says so.
    pub(in crate::supervisor) fn blame(&mut self, worker: Slot, ring: &Obstacle) {
        self.say(worker, super::advice_on_ring(ring));
    }

    /// Looks at a worker that runs.
    pub(in crate::supervisor) fn look_at(
        &mut self,
        (worker, group): (Slot, Pid),
        (attach, awaited, after): (AttachEnv, Awaited, Duration),
        missing: Vec<WorkerPort>,
        served: Vec<WorkerPort>,
    ) {
        let look = move || super::running(group, (&attach, awaited, after), missing, served);
        self.looking.spawn(blocking::run(move || (worker, look())));
    }

    /// Looks for why a worker ended, while the `others` run.
    pub(in crate::supervisor) fn look_back_at(
        &mut self,
        (worker, how, left): (Slot, Ended, bool),
        plan: Arc<Plan>,
        (missing, served): (Vec<WorkerPort>, Vec<WorkerPort>),
        (attach, others): (AttachEnv, Vec<Pid>),
    ) {
        let look = move || super::ended(&plan.spec, (how, left), (missing, served), (&attach, &others));
        self.looking.spawn(blocking::run(move || (worker, look())));
    }

    /// What the next look has seen; `None` if none is under way. A future that is dropped loses nothing.
    pub(in crate::supervisor) async fn next(&mut self) -> Option<(Slot, Findings)> {
        self.looking.join_next().await?.ok()
    }

    /// Says what a look has seen.
    pub(in crate::supervisor) fn advise(&mut self, worker: Slot, seen: &Findings) {
        self.say(worker, super::advice(seen));
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
        let all = async {
            while let Some((worker, seen)) = self.next().await {
                self.advise(worker, &seen);
            }
        };
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
