//! Starts what has workers replaced without being asked by anyone: limits, certain times, changes of files.
//!
//! What is looked at, and how, is in the supervisor's room.

use crate::settings::Config;
use crate::supervisor::Handle;
use crate::supervisor::triggers::cron;
use crate::supervisor::triggers::limits::{self, Bounds};
use crate::supervisor::triggers::watch::{Changes, WatchError};
use crate::tasks;

/// Watches what `--watch` names, if anything, from now on.
///
/// # Errors
/// Something cannot be watched.
pub(super) fn changes(config: &Config) -> Result<Option<Changes>, WatchError> {
    let is_wanted = !config.watch.is_empty();
    let paths: Vec<_> = config.watch.iter().map(|path| config.in_start_folder(path)).collect();
    is_wanted.then(|| Changes::of(&paths, &config.ignore)).transpose()
}

/// Attends to the workers for as long as the program runs.
pub(super) fn attend(config: &Config, changes: Option<Changes>, supervisor: &Handle) {
    let bounds = Bounds { memory: config.max_memory.map(|memory| memory.as_u64()), age: config.max_age };
    if !bounds.is_empty() {
        tasks::spawn(limits::hold(supervisor.clone(), bounds));
    }
    if let Some(cron) = config.cron.clone() {
        tasks::spawn(cron::follow(cron, supervisor.clone()));
    }
    if let Some(changes) = changes {
        tasks::spawn(changes.reload(supervisor.clone()));
    }
}
