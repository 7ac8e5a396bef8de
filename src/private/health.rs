//! Asks every worker that is online, again and again, whether it answers; and has one replaced that does not.
//!
//! How it is replaced, and that it is one at a time, is the supervisor's business.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounterVec;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{info, warn};

use super::WorkerDialer;
use super::probe::probe;
use super::question::Question;
use crate::ids::{WorkerId, WorkerPort};
use crate::supervisor::Handle;
use crate::supervisor::Overview;
use crate::supervisor::events::ReplaceReason;
use crate::supervisor::lifecycle::Phase;

/// How long a worker may take to answer, unless it is asked more often.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How the workers are asked.
#[derive(Clone, Debug)]
pub(crate) struct HealthRules {
    /// On which listener.
    pub port: WorkerPort,
    /// For what.
    pub question: Question,
    /// How often.
    pub interval: Duration,
    /// How many times in a row they may fail to answer.
    pub failures: NonZeroU32,
}

/// What asking needs.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    /// How it is done.
    pub rules: HealthRules,
    /// The way in to the workers.
    pub dialer: WorkerDialer,
    /// Replaces those that fail.
    pub supervisor: Handle,
    /// How many probes have failed, by slot.
    pub failures: IntCounterVec,
}

impl Health {
    /// Goes on until the supervisor is gone.
    pub(crate) async fn watch(self) {
        let mut status = self.supervisor.status();
        let mut asking: BTreeMap<WorkerId, AbortHandle> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let online = online(&status.borrow_and_update());
            asking.retain(|worker, task| {
                let stays = online.contains(worker);
                if !stays {
                    task.abort();
                }
                stays
            });
            for &worker in &online {
                asking.entry(worker).or_insert_with(|| tasks.spawn(self.clone().ask(worker)));
            }
            while tasks.try_join_next().is_some() {}
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    /// Asks one worker for as long as it is online. The first question comes at any time within the interval, so that
    /// workers that came up together are not all asked at once.
    async fn ask(self, worker: WorkerId) {
        let HealthRules { port, question, interval, failures: most } = &self.rules;
        let failures = self.failures.with_label_values(&[&worker.slot.to_string()]);
        let mut ticks = interval_at(Instant::now() + interval.mul_f64(fastrand::f64()), *interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut record = Record::default();
        loop {
            ticks.tick().await;
            match probe(&self.dialer, worker, *port, question, TIMEOUT.min(*interval)).await {
                Ok(()) => {
                    if record.answered() {
                        info!(%worker, "worker is healthy again");
                    }
                }
                Err(error) if error.is_leaving() => {}
                Err(error) => {
                    failures.inc();
                    let last = error.to_string();
                    match record.failed(*most) {
                        Verdict::First => warn!(%worker, "health probe failed: {last}"),
                        Verdict::Further => {}
                        Verdict::Unhealthy { failures } => {
                            warn!(%worker, "worker is unhealthy: {failures} probes in a row have failed: {last}");
                            self.supervisor
                                .replace(worker, ReplaceReason::Unhealthy { failures, last })
                                .await;
                        }
                    }
                }
            }
        }
    }
}

fn online(app: &Arc<Overview>) -> BTreeSet<WorkerId> {
    let online = app.workers.iter().filter(|worker| worker.phase == Phase::Online);
    online.filter_map(|worker| Some(worker.running?.0)).collect()
}

/// How many times in a row a worker has failed to answer.
#[derive(Debug, Default)]
struct Record {
    failures: u32,
}

/// What a failure means after those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It may be nothing.
    First,
    /// It is not enough yet, or was enough before.
    Further,
    /// It is one too many, or as many once more: the worker is still there.
    Unhealthy { failures: u32 },
}

impl Record {
    /// Returns whether it had failed before.
    fn answered(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    fn failed(&mut self, most: NonZeroU32) -> Verdict {
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            failures if failures % most == 0 => Verdict::Unhealthy { failures },
            1 => Verdict::First,
            _ => Verdict::Further,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_in_a_row_make_a_worker_unhealthy() {
        use Verdict::{First, Further, Unhealthy};
        let most = NonZeroU32::new(3).expect("not zero");
        let mut record = Record::default();
        assert!(!record.answered());
        assert_eq!([(); 2].map(|()| record.failed(most)), [First, Further]);
        assert!(record.answered());
        let verdicts = [(); 6].map(|()| record.failed(most));
        let unhealthy = |failures| Unhealthy { failures };
        assert_eq!(verdicts, [First, Further, unhealthy(3), Further, Further, unhealthy(6)]);
        let once = NonZeroU32::MIN;
        assert_eq!(Record::default().failed(once), unhealthy(1));
    }
}
