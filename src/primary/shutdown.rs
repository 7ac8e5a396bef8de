//! The way down: from the first signal to the last worker.
//!
//! ```text
//! TERM: not ready ─▶ no new connections, backlog and queue served ─▶ open connections end ─▶ TERM to workers ─▶ KILL
//!       0                                                            at most --drain-timeout   + --kill-timeout at most
//! ```
//! A second signal, or INT, goes straight to the workers. The supervisor's task ends the program; this only asks.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout_at};
use tracing::{info, warn};

use super::node::Disconnect;
use super::signals::{Signals, Wish};
use crate::admin::Readiness;
use crate::front;
use crate::supervisor::{self, Stop, processes};

/// How often the kernel's tables are asked whether clients are still connected.
const LOOK: Duration = Duration::from_millis(50);

/// What the way down needs.
#[derive(Debug)]
pub struct Shutdown {
    /// Stops accepting.
    pub front: front::handle::Handle,
    /// Stops the workers.
    pub supervisor: supervisor::Handle,
    /// Asks Node workers to leave.
    pub disconnect: Disconnect,
    /// Is told first.
    pub readiness: watch::Sender<Readiness>,
    /// From the first signal until workers are told to stop.
    pub drain_timeout: Duration,
    /// From then to the last SIGKILL.
    pub kill_timeout: Duration,
    /// The public ports.
    pub ports: Vec<u16>,
}

impl Shutdown {
    /// Waits for a signal and stops everything; then strengthens the stop at each further signal. Never returns:
    /// the supervisor's task ends when its workers are gone.
    pub async fn when_told(&self, signals: &mut Signals) {
        let (wish, name) = signals.next().await;
        self.readiness.send_replace(Readiness::Stopping);
        if wish == Wish::Graceful {
            info!(
                "{name}: stopping; connections that were accepted are served (at most {:?})",
                self.drain_timeout
            );
            tokio::select! {
                () = self.graceful() => {}
                _ = signals.next() => {}
            }
        }
        loop {
            info!("stopping at once");
            self.supervisor.stop(Stop::Fast).await;
            signals.next().await;
        }
    }

    async fn graceful(&self) {
        let drained_by = Instant::now() + self.drain_timeout;
        let kill_at = drained_by + self.kill_timeout;
        if timeout_at(drained_by.into(), self.front.stop()).await.is_err() {
            warn!("not every accepted connection was taken by a worker in time");
        }
        // Told before the workers are: those that understand it end by themselves, and must not be started again.
        self.supervisor.stop(Stop::Drain { kill_at }).await;
        self.front.drain().await;
        let ports = [self.disconnect.all().await, self.ports.clone()].concat();
        if timeout_at(drained_by.into(), all_closed(&ports)).await.is_err() {
            info!("clients are still connected; telling the workers to stop");
        }
        self.supervisor.stop(Stop::Graceful { kill_at }).await;
        std::future::pending().await
    }
}

/// Returns when no client is connected to one of these ports any more.
async fn all_closed(ports: &[u16]) {
    while processes::open_connections(ports).await > 0 {
        sleep(LOOK).await;
    }
}
