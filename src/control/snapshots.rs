//! Reading the state of apps and their workers, of which only so much is done at once.
//!
//! What is read is the backend's concern.

use std::sync::Arc;
use std::time::Duration;

use tower::{BoxError, ServiceExt};

use super::api::{App, Code, Problem};
use super::backend::{AppBackend, Detail};
use crate::http::{self, Bounded};
use crate::sys::blocking;

/// How many snapshots may be under way at once; further ones are refused.
const SNAPSHOTS: usize = 16;

/// How long a snapshot may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);

/// An app whose state is read.
struct Look {
    app: Arc<dyn AppBackend>,
    detail: Detail,
}

/// How state is read. Clones share the limits.
#[derive(Clone)]
pub(crate) struct Snapshots(Bounded<Look, App>);

impl Snapshots {
    pub(crate) fn new() -> Self {
        let snapshot =
            |Look { app, detail }| async move { Ok(blocking::run(move || app.snapshot(detail)).await) };
        Self(http::bounded(SNAPSHOTS, SNAPSHOT_TIMEOUT, snapshot))
    }

    /// The state of this app; without the lines that workers wrote, unless it is looked at closely.
    ///
    /// # Errors
    /// Too many are being read, or it takes too long.
    pub(crate) async fn take(&self, app: &Arc<dyn AppBackend>, detail: Detail) -> Result<App, Problem> {
        let snapshot = self.0.clone().oneshot(Look { app: Arc::clone(app), detail }).await;
        let mut snapshot =
            snapshot.map_err(|error| overloaded(&error, SNAPSHOTS, "the state of the workers"))?;
        if matches!(detail, Detail::Brief | Detail::Traffic) {
            snapshot.workers.iter_mut().for_each(|worker| worker.last_lines.clear());
        }
        Ok(snapshot)
    }

    /// The same with what passes through it, and how many connections each worker has open: without netlink nobody knows
    /// that; the rest is told all the same.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn take_with_traffic(&self, app: &Arc<dyn AppBackend>) -> Result<App, Problem> {
        let mut snapshot = self.take(app, Detail::Traffic).await?;
        if let Some(open) = app.open_connections().await {
            // While a worker is replaced, two processes share the number.
            for worker in &mut snapshot.workers {
                worker.connections_open = Some(open.get(&worker.worker).copied().unwrap_or_default());
            }
        }
        Ok(snapshot)
    }
}

/// Why `what` could not be read, of which so many readings may be under way.
pub(super) fn overloaded(error: &BoxError, most: usize, what: &str) -> Problem {
    let message = if error.is::<tower::load_shed::error::Overloaded>() {
        format!("{most} requests are reading {what} already")
    } else {
        format!("cannot read {what}: {error}")
    };
    Problem::new(Code::Overloaded, message)
}
