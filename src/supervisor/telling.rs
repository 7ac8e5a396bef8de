//! What happens to the workers, as clusterd's own messages and metrics say it.
//!
//! Each event has one line, in the words of `docs/operations.md`; hooks and followers get the event itself.

use std::time::Duration;

use humantime::format_duration;
use tracing::{debug, error, info, warn};

use super::events::What;
use crate::metrics::{Metrics, Reloaded};

/// Writes the message for an event.
pub(super) fn log(what: &What) {
    match what {
        What::WorkerStarted { worker, pid } => info!(%worker, pid, "worker started"),
        What::WorkerListens { worker, port, .. } => info!(%worker, %port, "worker listens"),
        What::WorkerOnline { worker, pid } => debug!(%worker, pid, "worker is online"),
        What::WorkerFailed { worker, pid, reason } => warn!(%worker, pid, "worker {reason}; ending it"),
        What::WorkerDraining { worker, pid } => info!(%worker, pid, "worker finishes what it has"),
        What::WorkerStopping { worker, pid } => debug!(%worker, pid, "worker was asked to end"),
        What::WorkerEnded { worker, pid, how, expected: true, .. } => info!(%worker, pid, "worker {how}"),
        // What follows is told next, with the reason.
        What::WorkerEnded { worker, pid, how, .. } => debug!(%worker, pid, "worker {how}"),
        What::WorkerRestarts { worker, reason, in_ms: 0 } => {
            warn!(%worker, "worker {reason}; starting it again");
        }
        What::WorkerRestarts { worker, reason, in_ms } => {
            let wait = format_duration(Duration::from_millis(*in_ms));
            warn!(%worker, "worker {reason}; starting it again in {wait}");
        }
        What::WorkerErrored { worker, reason, last_lines } => {
            let said = said("its", last_lines);
            error!(%worker, "worker {reason}; it is given up{said}");
        }
        What::WorkerStalled { worker } => {
            warn!(%worker, "worker took no connection in time; others get its share until it moves");
        }
        What::WorkerMoves { worker } => info!(%worker, "worker moves again"),
        What::WorkerReplaced { worker, reason } => info!(%worker, "worker is replaced: {reason}"),
        What::WorkerSays { worker, message } => debug!(%worker, %message, "worker says"),
        What::ReloadStarted { by } => info!("reload, by {by}"),
        What::ReloadDone { workers } => info!("reload done: {workers} replaced"),
        What::ReloadFailed { reason, last_lines } => {
            error!("reload failed: {reason}{}", said("the new worker's", last_lines));
        }
        What::Scaled { workers, by } => info!(workers, "scaled, by {by}"),
        What::AppStarted { by } => info!("started, by {by}"),
        What::AppStopping { by } => info!("workers are stopped, by {by}; the ports stay open"),
        What::Stopping { .. } | What::Missed { .. } => {}
    }
}

fn said(whose: &str, last_lines: &[String]) -> String {
    match last_lines {
        [] => String::new(),
        lines => format!("; {whose} last lines: {}", lines.join(" | ")),
    }
}

/// Counts an event, if it is one that is counted here.
pub(super) fn count(what: &What, metrics: &Metrics) {
    let result = match what {
        What::ReloadDone { .. } => Reloaded::Done,
        What::ReloadFailed { .. } => Reloaded::Failed,
        _ => return,
    };
    metrics.reloads.with_label_values(&[result.label()]).inc();
}
