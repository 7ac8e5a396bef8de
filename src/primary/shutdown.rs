//! The way down: from the first signal to the last worker.
//!
//! ```text
//! TERM: not ready ─▶ no new connections, backlog and queue served ─▶ each worker: open connections end ─▶ TERM ─▶ KILL
//!       0                                                            drain timeout at most            kill timeout
//! ```
//! A second signal, or INT, goes straight to the workers. The supervisor's task ends the program; this only asks.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout_at;
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
    /// From the signal until the last worker is asked to end.
    pub drain_timeout: Duration,
}

impl Shutdown {
    /// Waits for a signal and stops everything; then strengthens the stop at each further signal. Never returns:
    /// the supervisor's task ends when its workers are gone.
    pub(super) async fn when_told(&self, orders: &mut SignalActions) -> Infallible {
        let (action, name) = orders.stop().await;
        self.readiness.send_replace(Readiness::Stopping);
        self.supervisor.close().await;
        self.supervisor.tell(EventKind::Stopping { by: name.to_owned() }).await;
        if action == SignalAction::Graceful {
            info!("{name}: stopping; serving accepted connections for at most {:?}", self.drain_timeout);
            tokio::select! {
                () = self.graceful() => {}
                _ = orders.stop() => {}
            }
        }
        loop {
            info!("stopping at once");
            self.supervisor.stop(Stop::Fast).await;
            orders.stop().await;
        }
    }

    async fn graceful(&self) {
        let until = Instant::now() + self.drain_timeout;
        if timeout_at(until.into(), self.front.stop()).await.is_err() {
            warn!("workers did not take every accepted connection in time");
        }
        self.supervisor.stop(Stop::Graceful { until }).await;
        std::future::pending().await
    }
}
