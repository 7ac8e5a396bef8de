//! In which order the rooms stand still, and what they have then.
//!
//! Whoever gives something to others stands still before those do, so that nothing is on its way between two of them: first who
//! admits workers and speaks with them, then the front, and the supervisor last. Clients wait from the moment that the front stands
//! still; all that can be done before is done before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::super::front_reports::Flush;
use super::opened::Opened;
use super::snapshot::{OrderSnapshot, SettingsSnapshot, Snapshot};
use crate::attach::bound::BoundChannels;
use crate::attach::on_demand::{OnDemand, Openings};
use crate::attach::socket::AttachHandle;
use crate::carry::{NotCarried, Still};
use crate::connections::notes::Notes;
use crate::connections::statistics::Statistics;
use crate::front::links::ChannelPermits;
use crate::logs::Output;
use crate::metrics::Metrics;
use crate::supervisor::snapshot::SupervisorSnapshot;
use crate::sys::closer;
use crate::{connections, front, supervisor};

/// How long one room may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long it may take until what was asked for begins. Whoever asks for more waits as long.
const ORDER: Duration = Duration::from_millis(500);

/// Everybody who stands still.
pub(in crate::primary) struct Rooms {
    pub supervisor: supervisor::Handle,
    pub front: front::handle::Handle,
    pub connections: connections::Handle,
    pub notes: Notes,
    pub statistics: Option<Arc<Statistics>>,
    pub attach: AttachHandle,
    pub bound: BoundChannels,
    pub on_demand: Option<OnDemand>,
    pub openings: Openings,
    pub permits: ChannelPermits,
    pub output: Output,
    pub metrics: Metrics,
    /// Passes on what the front and Node workers have said.
    pub flush: Flush,
    /// How many commands of `--on-event` run or wait, if there are any.
    pub on_event: Option<watch::Receiver<usize>>,
    /// What the primary has.
    pub primary: Opened,
    /// The settings of the start.
    pub settings: SettingsSnapshot,
}

impl Rooms {
    /// All of them, ordered by this one.
    ///
    /// # Errors
    /// Something is under way, or does not come to an end: all go on.
    pub(super) async fn stand_still(&self, by: &str) -> Result<Still<Snapshot>, NotCarried> {
        // Nobody else is stopped for what may take long.
        self.supervisor.is_quiet().await?;
        let orders = self.supervisor.no_orders(ORDER).await;
        let orders =
            orders.ok_or_else(|| NotCarried("what was asked of clusterd is under way".to_owned()))?;
        self.no_hook_runs().await?;
        let attach = soon("the attach socket", self.attach.stand_still()).await?;
        let (since, hooks) = soon("a worker's channel", self.supervisor.hooks_stand_still()).await?;
        let hooks_state = serde_json::from_slice(hooks.state.get().as_bytes())
            .map_err(|error| NotCarried(format!("what is around the workers: {error}")))?;
        let output = soon("the output", self.output.stand_still()).await?;
        // It tells the front which connections have ended. What it tells is counted there before that stands still, too.
        let connections = soon("the connections", self.connections.stand_still()).await?;
        // Before the front is asked, so that nothing of what was accepted is left out.
        let stood_still = Instant::now();
        let front = soon("the front", self.front.stand_still()).await?;
        let flushed = async {
            self.flush.done().await;
            Ok(())
        };
        soon("what the front reports", flushed).await?;
        let supervisor = soon("the supervisor", self.supervisor.stand_still(since)).await?;
        self.no_hook_runs().await?;
        let closing = closer::hold();
        let statistics = self.statistics.as_ref().map(|statistics| statistics.stand_still());
        let opened = self.on_demand.as_ref().map(OnDemand::snapshot).transpose()?;
        let (format, clusterd, word) = Snapshot::written_here();
        let snapshot = Snapshot {
            format,
            clusterd,
            word,
            order: OrderSnapshot { by: by.to_owned(), stood_still: stood_still.into() },
            settings: self.settings.clone(),
            primary: self.primary.snapshot(),
            supervisor: SupervisorSnapshot::clone(&supervisor.state),
            hooks: hooks_state,
            front: front.state.clone(),
            attach: attach.state.clone(),
            bound: self.bound.snapshot(),
            opened,
            openings: self.openings.snapshot(),
            channels: self.permits.snapshot(),
            connections: self.connections.since(connections.state.clone()),
            closing: closing.numbers(),
            notes: self.notes.snapshot(),
            statistics: statistics.as_ref().map(|statistics| statistics.state.clone()),
            output: output.state.clone(),
            metrics: self.metrics.snapshot(),
        };
        // Whoever has spoken to it since is not heard before the next image, which does not hear it.
        if !self.supervisor.has_heard_all() {
            return Err(NotCarried("the supervisor is told something".to_owned()));
        }
        let around = (output, hooks, attach, orders);
        Ok(Still::new(snapshot, (statistics, connections, closing, supervisor, front, around)))
    }
}

impl Rooms {
    /// A command that runs would write into pipes that nobody reads any more, and be waited for by nobody.
    async fn no_hook_runs(&self) -> Result<(), NotCarried> {
        let Some(under_way) = &self.on_event else { return Ok(()) };
        // What was told by now is counted then.
        tokio::task::yield_now().await;
        match *under_way.borrow() {
            0 => Ok(()),
            _ => Err(NotCarried("a command of --on-event is under way".to_owned())),
        }
    }
}

/// What it has, within a time.
async fn soon<T>(what: &str, standing: impl Future<Output = Result<T, NotCarried>>) -> Result<T, NotCarried> {
    let stood = timeout(PATIENCE, standing).await;
    stood.unwrap_or_else(|_| Err(NotCarried(format!("{what} did not stand still within {PATIENCE:?}"))))
}
