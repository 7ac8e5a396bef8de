//! What is shown of connections in `/metrics`: how many each worker has open, and what they move.
//!
//! Who has which connection is known in [`connections`](crate::connections).

use std::sync::Arc;
use std::time::Instant;

use crate::admin::open_connections::{AskCounts, Counts};
use crate::connections::Handle;
use crate::connections::statistics::Statistics;
use crate::ids::Slot;
use crate::metrics::Metrics;
use crate::supervisor;

/// `--connection-stats`: counts connections that end from now on.
pub(super) fn start_statistics(
    is_wanted: bool,
    connections: &Handle,
    metrics: &Metrics,
) -> Option<Arc<Statistics>> {
    let statistics = is_wanted.then(|| Arc::new(Statistics::new(metrics.clone())))?;
    let counting = Arc::clone(&statistics);
    connections.watch_ends(move |ended| counting.count_ended(&ended));
    Some(statistics)
}

/// Counts the open connections of every worker that has a process. With statistics, what they have moved so far counts,
/// too.
pub(super) fn ask(
    connections: Handle,
    supervisor: &supervisor::Handle,
    statistics: Option<Arc<Statistics>>,
) -> AskCounts {
    let status = supervisor.status();
    Box::new(move || {
        let running: Vec<Slot> = {
            let status = status.borrow();
            status
                .workers
                .iter()
                .filter(|worker| worker.running.is_some())
                .map(|worker| worker.slot)
                .collect()
        };
        let (connections, statistics) = (connections.clone(), statistics.clone());
        Box::pin(async move {
            let counts = match statistics {
                None => count(&connections).await?,
                Some(statistics) => {
                    statistics.show(running.iter().copied());
                    count_and_look(&connections, &statistics).await?
                }
            };
            Some(with_all(counts, running))
        })
    })
}

async fn count(connections: &Handle) -> Option<Vec<(Slot, usize)>> {
    let counts = connections.count_by_worker().await.ok()?;
    Some(counts.into_iter().map(|(worker, count)| (worker.slot, count)).collect())
}

async fn count_and_look(connections: &Handle, statistics: &Statistics) -> Option<Vec<(Slot, usize)>> {
    let look = statistics.begin_look();
    let open = connections.snapshot().await.ok()?;
    look.finish(&open, Instant::now());
    Some(open.iter().filter_map(|connection| Some((connection.worker?.slot, 1))).collect())
}

/// Those that have none open have none, rather than no number. While a worker is replaced, its slot has those of both.
fn with_all(counts: Vec<(Slot, usize)>, running: Vec<Slot>) -> Counts {
    let mut all: Counts = running.into_iter().map(|slot| (slot, 0)).collect();
    for (slot, count) in counts {
        *all.entry(slot).or_default() += count;
    }
    all
}
