//! Keeps what is wanted of the app, so that it is so again after a crash or a boot.
//!
//! Only what commands have changed is kept: the end of the process changes nothing.

use std::sync::Arc;

use tokio::sync::watch;

use crate::home::apps::AppFolder;
use crate::home::note;
use crate::home::record::Wanted;
use crate::supervisor::Overview;

/// Writes it down whenever it changes.
pub(super) async fn keep(folder: AppFolder, mut status: watch::Receiver<Arc<Overview>>) {
    // What is told first is what was read at the start.
    let first = status.wait_for(|overview| overview.plan.is_some()).await.map(|first| wanted(&first));
    let Ok(mut kept) = first else { return };
    while status.changed().await.is_ok() {
        let now = wanted(&status.borrow_and_update());
        if now == kept {
            continue;
        }
        let ((wanted, workers), folder) = (now, folder.clone());
        let is_scaled = workers != kept.1;
        let write = move || {
            note(&folder, |record| {
                record.wanted = wanted;
                record.workers = if is_scaled { Some(workers) } else { record.workers };
            });
        };
        // A disk may take its time.
        let _ = tokio::task::spawn_blocking(write).await;
        kept = now;
    }
}

fn wanted(overview: &Overview) -> (Wanted, u32) {
    (if overview.is_stopped { Wanted::Stopped } else { Wanted::Running }, overview.wanted)
}
