//! Lets the front know of the connections that workers do not have any more, if it counts them.
//!
//! How that is known is the business of `connections`, and what follows is the front's.

use tokio::sync::watch;

use super::data_path;
use super::error::PrimaryError;
use crate::connections::{self, Telling, notes};
use crate::front::handle::Handle;
use crate::settings::Config;
use crate::tasks;

/// Starts it, where the policy or `--concurrency` needs it. `waits_for_place` tells whether somebody waits for a worker that
/// has as many connections as it may have.
///
/// # Errors
/// They cannot be counted on this system.
pub(super) fn keep(
    config: &Config,
    connections: &connections::Handle,
    front: &Handle,
    waits_for_place: watch::Receiver<bool>,
) -> Result<(), PrimaryError> {
    if config.concurrency.is_none() && !data_path::choice(config.policy).counts() {
        return Ok(());
    }
    notes::check().map_err(PrimaryError::Uncounted)?;
    let front = front.clone();
    // Beside a limit a client may wait for each that ends; to a policy that counts, some milliseconds are nothing.
    let telling = if config.concurrency.is_some() { Telling::AtOnce } else { Telling::Gathered };
    connections.watch_freed(telling, move |workers| front.freed(workers));
    if config.concurrency.is_some() {
        tasks::spawn(hurry(connections.clone(), waits_for_place));
    }
    Ok(())
}

async fn hurry(connections: connections::Handle, mut waits_for_place: watch::Receiver<bool>) {
    while waits_for_place.changed().await.is_ok() {
        let waits = *waits_for_place.borrow_and_update();
        connections.hurry(waits);
    }
}
