//! Keeps what is wanted of the app, so that it is so again after a crash or a boot.
//!
//! Only what commands have changed is kept: the end of the process changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::debug;

use crate::front;
use crate::front::arrival::{Arrival, Arrivals};
use crate::home::apps::AppFolder;
use crate::home::definition;
use crate::home::ids::Ids;
use crate::home::record::{Record, Wanted};
use crate::home::{Starter, not_kept, note};
use crate::ids::WorkerPort;
use crate::logs::WorkerIds;
use crate::supervisor::{Environment, Overview};
use crate::sys::blocking;

/// Writes it down whenever it changes, or when the folder was made `again`, and has a number for each worker. A primary in the
/// foreground keeps nothing else.
pub(super) async fn keep(
    (folder, starter): (AppFolder, Starter),
    mut status: watch::Receiver<Arc<Overview>>,
    mut again: watch::Receiver<()>,
    ids: WorkerIds,
    front: front::handle::Handle,
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
            let open = if now.2 { front.open_arrivals().await } else { Vec::new() };
            write(&folder, now, is_scaled, open).await;
        }
        kept = now;
    }
}

/// Gives each worker a number. A disk may take its time.
pub(super) async fn number(folder: &AppFolder, workers: u32, ids: &WorkerIds) {
    let folder = folder.clone();
    let give = move || Ids::give(folder.home(), folder.name(), workers);
    match blocking::run(give).await {
        Ok(given) => ids.set(given),
        Err(error) => {
            debug!(%error, "workers get no numbers");
            ids.count_alone(workers);
        }
    }
}

async fn write(
    folder: &AppFolder,
    (wanted, workers, _): Now,
    is_scaled: bool,
    open: Vec<(WorkerPort, Arrivals)>,
) {
    let names = |arrivals: Arrivals| arrivals.each().map(|arrival| arrival.name().to_owned()).collect();
    let held: BTreeMap<_, _> = open.into_iter().map(|(port, arrivals)| (port.0, names(arrivals))).collect();
    let folder = folder.clone();
    let write = move || {
        note(&folder, |record| {
            record.wanted = wanted;
            record.held = held;
            record.workers = if is_scaled { Some(workers) } else { record.workers };
        });
    };
    blocking::run(write).await;
}

/// Whoever starts the app again gives it what workers were told to inherit last.
async fn set_environment(folder: &AppFolder, new: Option<Environment>) {
    let (folder, Some(new)) = (folder.clone(), new) else { return };
    let set = move || {
        let set = definition::set_environment(&folder, &new);
        let _ = set.inspect_err(|error| not_kept(&folder.environment(), error));
    };
    blocking::run(set).await;
}

fn inherited(overview: &Overview) -> Option<Environment> {
    overview.plan.as_ref().map(|plan| plan.spec.inherited.clone())
}

/// Whether the app is to run, with how many workers, and whether clients wait until it does.
type Now = (Wanted, u32, bool);

fn wanted(overview: &Overview) -> Now {
    let wanted = if overview.is_stopped { Wanted::Stopped } else { Wanted::Running };
    (wanted, overview.wanted, overview.is_held)
}

/// Has clients wait where they did at the process before this one, which has crashed.
pub(super) async fn hold_again(folder: &AppFolder, front: &front::handle::Handle) {
    let arrivals = |names: &Vec<String>| names.iter().filter_map(|name| Arrival::named(name)).collect();
    let held = Record::of(folder).held;
    front.hold(held.iter().map(|(port, names)| (WorkerPort(*port), arrivals(names))).collect()).await;
}
