//! Keeps what is wanted of the app, so that it is so again after a crash or a boot.
//!
//! Only what commands have changed is kept: the end of the process changes nothing.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::debug;

use crate::home::apps::AppFolder;
use crate::home::definition;
use crate::home::ids::Ids;
use crate::home::record::Wanted;
use crate::home::{Starter, not_kept, note};
use crate::logs::WorkerIds;
use crate::supervisor::{Environment, Overview};

/// Writes it down whenever it changes, or when the folder was made `again`, and has a number for each worker. A primary in the
/// foreground keeps nothing else.
pub(super) async fn keep(
    (folder, starter): (AppFolder, Starter),
    mut status: watch::Receiver<Arc<Overview>>,
    mut again: watch::Receiver<()>,
    ids: WorkerIds,
) {
    // What is told first is what was read at the start.
    let first = status.wait_for(|overview| overview.plan.is_some()).await.map(|first| wanted(&first));
    let Ok(mut kept) = first else { return };
    let mut inherited = inherited(&status.borrow());
    number(&folder, kept.1, &ids).await;
    let mut is_scaled = false;
    loop {
        let is_made_again = tokio::select! {
            Ok(()) = status.changed() => false,
            Ok(()) = again.changed() => true,
            else => return,
        };
        let (now, inherits) = {
            let overview = status.borrow_and_update();
            (wanted(&overview), self::inherited(&overview))
        };
        if starter.keeps_app() && inherits != inherited {
            set_environment(&folder, inherits.clone()).await;
            inherited = inherits;
        }
        if now == kept && !is_made_again {
            continue;
        }
        is_scaled |= now.1 != kept.1;
        if now.1 != kept.1 || is_made_again {
            number(&folder, now.1, &ids).await;
        }
        if starter.keeps_app() {
            write(&folder, now, is_scaled).await;
        }
        kept = now;
    }
}

/// Gives each worker a number. A disk may take its time.
pub(super) async fn number(folder: &AppFolder, workers: u32, ids: &WorkerIds) {
    let folder = folder.clone();
    let give = move || Ids::give(folder.home(), folder.name(), workers);
    match tokio::task::spawn_blocking(give).await {
        Ok(Ok(given)) => ids.set(given),
        Ok(Err(error)) => debug!(%error, "workers get no numbers"),
        Err(_) => {}
    }
}

async fn write(folder: &AppFolder, (wanted, workers): (Wanted, u32), is_scaled: bool) {
    let folder = folder.clone();
    let write = move || {
        note(&folder, |record| {
            record.wanted = wanted;
            record.workers = if is_scaled { Some(workers) } else { record.workers };
        });
    };
    let _ = tokio::task::spawn_blocking(write).await;
}

/// Whoever starts the app again gives it what workers were told to inherit last.
async fn set_environment(folder: &AppFolder, new: Option<Environment>) {
    let (folder, Some(new)) = (folder.clone(), new) else { return };
    let set = move || {
        let set = definition::set_environment(&folder, &new);
        let _ = set.inspect_err(|error| not_kept(&folder.environment(), error));
    };
    let _ = tokio::task::spawn_blocking(set).await;
}

fn inherited(overview: &Overview) -> Option<Environment> {
    overview.plan.as_ref().map(|plan| plan.spec.inherited.clone())
}

fn wanted(overview: &Overview) -> (Wanted, u32) {
    (if overview.is_stopped { Wanted::Stopped } else { Wanted::Running }, overview.wanted)
}
