//! What is done beside the supervisor's task for workers, each with what it will report.
//!
//! It only waits: what is waited for comes from the hooks, what follows is decided by the lifecycle.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::lifecycle::Input;
use super::rollout::InstanceId;
use crate::ids::WorkerId;
use crate::logs::LastLines;

/// How long what a worker wrote last may take to be read; processes that it has left may hold its pipe for ever.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What comes of a wait, and for whom.
type Report = (InstanceId, Input);

/// The waits under way.
#[derive(Default)]
pub(super) struct Background {
    /// For workers that run. They end with the task.
    helping: JoinSet<Option<Report>>,
    /// For workers that are gone: what they have left is taken back. The task waits for it.
    reclaiming: JoinSet<Report>,
}

impl Background {
    /// Whether nothing is under way. What has ended has to have been told: see [`Background::next`].
    pub(super) fn is_empty(&self) -> bool {
        self.helping.is_empty() && self.reclaiming.is_empty()
    }

    /// Waits until nothing is on its way to a worker any more, or for `limit`.
    pub(super) fn retire(
        &mut self,
        (instance, worker): (InstanceId, WorkerId),
        retired: BoxFuture<'static, ()>,
        limit: Duration,
    ) {
        self.helping.spawn(async move {
            let _ = timeout(limit, retired).await;
            Some((instance, Input::Retired(worker)))
        });
    }

    /// Waits until a worker has no client any more, or for `limit`.
    pub(super) fn drain(
        &mut self,
        (instance, worker): (InstanceId, WorkerId),
        drained: BoxFuture<'static, ()>,
        limit: Duration,
    ) {
        self.helping.spawn(async move {
            let _ = timeout(limit, drained).await;
            Some((instance, Input::Drained(worker)))
        });
    }

    /// Waits until a worker has answered its probe; that it has not within `limit` is told by nobody.
    pub(super) fn probe(
        &mut self,
        (instance, worker): (InstanceId, WorkerId),
        probed: BoxFuture<'static, ()>,
        limit: Duration,
    ) {
        self.helping.spawn(async move {
            timeout(limit, probed).await.ok().map(|()| (instance, Input::Probed(worker)))
        });
    }

    /// Sees to it that this is done.
    pub(super) fn see_to(&mut self, done: BoxFuture<'static, ()>) {
        self.helping.spawn(async move {
            done.await;
            None
        });
    }

    /// Waits until what a worker has not taken is taken back, and what it wrote last is read.
    pub(super) fn reclaim(
        &mut self,
        (instance, id): (InstanceId, WorkerId),
        gone: BoxFuture<'static, u64>,
        output: Option<LastLines>,
    ) {
        self.reclaiming.spawn(async move {
            let served = gone.await;
            if let Some(output) = output {
                let _ = timeout(LAST_WORDS, output.ended()).await;
            }
            (instance, Input::Forgotten { id, served })
        });
    }

    /// The next report; `None` from a wait without one. Pending while nothing is under way. A future that is dropped
    /// loses nothing.
    pub(super) async fn next(&mut self) -> Option<Report> {
        tokio::select! {
            Some(done) = self.helping.join_next() => done.ok().flatten(),
            Some(done) = self.reclaiming.join_next() => done.ok(),
            else => std::future::pending().await,
        }
    }

    /// Waits until what workers have left is taken back, for `limit` at most; whether it was.
    pub(super) async fn finish(&mut self, limit: Duration) -> bool {
        let done = async { while self.reclaiming.join_next().await.is_some() {} };
        timeout(limit, done).await.is_ok()
    }
}
