//! What happens to the workers, as clusterd's own messages and metrics say it.
//!
//! Each event has one line, in the words of `docs/reference.md`; hooks and followers get the event itself.

use std::time::Duration;

use humantime::format_duration;
use tracing::{debug, error, info, warn};

use super::events::EventKind;
use crate::metrics::{Metrics, Reloaded};

/// Writes the message for an event.
pub(super) fn log(kind: &EventKind) {
    match kind {
        EventKind::WorkerStarted { worker, pid } => info!(%worker, pid, "worker started"),
        EventKind::WorkerListens { worker, port, .. } => info!(%worker, %port, "worker listens"),
        EventKind::WorkerOnline { worker, pid } => debug!(%worker, pid, "worker is online"),
        EventKind::WorkerFailed { worker, pid, reason } => {
            warn!(%worker, pid, "worker {reason}; stopping it")
        }
        EventKind::WorkerDraining { worker, pid } => info!(%worker, pid, "worker draining"),
        EventKind::WorkerStopping { worker, pid } => debug!(%worker, pid, "worker stopping"),
        EventKind::WorkerEnded { worker, pid, how, expected: true, .. } => {
            info!(%worker, pid, "worker {how}")
        }
        // What follows is told next, with the reason.
        EventKind::WorkerEnded { worker, pid, how, .. } => debug!(%worker, pid, "worker {how}"),
        EventKind::WorkerRestarts { worker, reason, in_ms: 0 } => {
            warn!(%worker, "worker {reason}; restarting");
        }
        EventKind::WorkerRestarts { worker, reason, in_ms } => {
            let wait = format_duration(Duration::from_millis(*in_ms));
            warn!(%worker, "worker {reason}; restarting in {wait}");
        }
        EventKind::WorkerErrored { worker, reason, last_lines } => {
            let said = said("its", last_lines);
            error!(%worker, "worker {reason}; giving it up{said}");
        }
        EventKind::WorkerStalled { worker } => {
            warn!(%worker, "worker took no connection in time; others get its share until it recovers");
        }
        EventKind::WorkerMoves { worker } => info!(%worker, "worker recovered"),
        EventKind::WorkerReplaced { worker, reason } => info!(%worker, "replacing worker: {reason}"),
        EventKind::ReloadStarted { by } => info!("reload started by {by}"),
        EventKind::ReloadDone { workers } => info!("reload done: {workers} replaced"),
        EventKind::ReloadFailed { reason, last_lines } => {
            error!("reload failed: {reason}{}", said("the new worker's", last_lines));
        }
        EventKind::Scaled { workers, by } => info!(workers, "scaled by {by}"),
        EventKind::AppStarted { by } => info!("started by {by}"),
        EventKind::AppStopping { by } => {
            info!("workers stopped by {by}; the ports are kept, and refuse clients")
        }
        EventKind::Upgraded { from, to, by } => info!("upgraded from clusterd {from} to {to} by {by}"),
        EventKind::UpgradeFailed { reason, by } => {
            error!("not upgraded, which was asked for by {by}: {reason}");
        }
        // What workers say is logged by the session that hears it, also what is too long for an event.
        EventKind::WorkerSays { .. } | EventKind::Stopping { .. } | EventKind::Missed { .. } => {}
    }
}

fn said(whose: &str, last_lines: &[String]) -> String {
    match last_lines {
        [] => String::new(),
        lines => format!("; {whose} last lines: {}", lines.join(" | ")),
    }
}

/// Counts an event, if it is one that is counted here.
pub(super) fn count(kind: &EventKind, metrics: &Metrics) {
    let result = match kind {
        EventKind::ReloadDone { .. } => Reloaded::Done,
        EventKind::ReloadFailed { .. } => Reloaded::Failed,
        _ => return,
    };
    metrics.reloads.with_label_values(&[result.label()]).inc();
}
