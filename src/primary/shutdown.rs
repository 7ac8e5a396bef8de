//! The way down: from the first signal to the last worker.
//!
//! ```text
//! TERM: not ready ─▶ no new connections, backlog and queue served ─▶ each worker: open connections end ─▶ TERM ─▶ KILL
//!       0   stop delay                                               drain timeout at most            kill timeout
//! ```
//! In the stop delay all goes on as before, for load balancers that have yet to hear of it. A second signal, or INT, goes straight to the workers. The supervisor's task ends the program; this only asks.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};
use tracing::{info, warn};

use super::signal_actions::SignalActions;
use super::signals::SignalAction;
use crate::admin::Readiness;
use crate::front;
use crate::supervisor::events::EventKind;
use crate::supervisor::{self, Stop};

/// What the way down needs.
#[derive(Debug)]
pub(super) struct Shutdown {
    /// Stops accepting.
    pub front: front::handle::Handle,
    /// Stops the workers.
    pub supervisor: supervisor::Handle,
    /// Shows it first.
    pub readiness: watch::Sender<Readiness>,
    /// From the signal until no further client is accepted.
    pub stop_delay: Duration,
    /// From the signal until the last worker is asked to end.
    pub drain_timeout: Duration,
}

impl Shutdown {
    /// Waits for a signal and stops everything; then strengthens the stop at each further signal. Never returns:
    /// the supervisor's task ends when its workers are gone.
    pub(super) async fn when_told(&self, orders: &mut SignalActions) -> Infallible {
        let (action, name) = orders.stop().await;
        let until = Instant::now() + self.drain_timeout;
        let was_ready = self.readiness.send_replace(Readiness::Stopping).is_ready();
        let is_graceful = action == SignalAction::Graceful && self.delay(name, was_ready, orders).await;
        // Where there are no workers, the supervisor ends as soon as it hears of it, and the program with it.
        if is_graceful {
            let left = until.saturating_duration_since(Instant::now()).as_millis().div_ceil(100) * 100;
            let left = Duration::from_millis(left.try_into().unwrap_or(u64::MAX));
            info!("{name}: stopping; serving accepted connections for at most {left:?}");
        } else {
            info!("{name}: stopping at once");
        }
        self.supervisor.close().await;
        self.supervisor.tell(EventKind::Stopping { by: name.to_owned() }).await;
        if is_graceful {
            tokio::select! {
                () = self.graceful(until) => {}
                _ = orders.stop() => {}
            }
            info!("stopping at once");
        }
        loop {
            self.supervisor.stop(Stop::Fast).await;
            orders.stop().await;
            info!("stopping at once");
        }
    }

    /// Goes on for as long as load balancers may send clients, which they do not to one that is not ready. Whether no further
    /// signal came meanwhile.
    async fn delay(&self, name: &str, was_ready: bool, orders: &mut SignalActions) -> bool {
        if self.stop_delay.is_zero() || !was_ready {
            return true;
        }
        info!("{name}: stopping in {:?}; clients are accepted until then", self.stop_delay);
        timeout(self.stop_delay, orders.stop()).await.is_err()
    }

    async fn graceful(&self, until: Instant) {
        if timeout_at(until.into(), self.front.stop()).await.is_err() {
            warn!("workers did not take every accepted connection in time");
        }
        self.supervisor.stop(Stop::Graceful { until }).await;
        std::future::pending().await
    }
}
