//! Tells whose an address is that a worker asks for and does not get.
//!
//! The worker is told by its bind(2), as without clusterd; here it is said in the log, which others read.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use super::owner::{self, Owner};
use crate::sys::blocking;

/// How long the same is not said again: workers that fail are started again and again.
const PAUSE: Duration = Duration::from_secs(60);

/// How long it is waited for whoever has the port to listen: two apps that are started at once ask for it at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// Of how many addresses it is remembered when they were told of.
const MOST: usize = 64;

/// Tells of each of these addresses, as long as there may be any.
pub(super) async fn tell(mut taken: mpsc::Receiver<SocketAddr>) {
    let mut told: Vec<(SocketAddr, Instant)> = Vec::new();
    while let Some(address) = taken.recv().await {
        told.retain(|(_, at)| at.elapsed() < PAUSE);
        if told.len() >= MOST || told.iter().any(|(known, _)| *known == address) {
            continue;
        }
        let owner = owner_of(address.port()).await;
        warn!("a worker cannot listen on {address}, for which bind fails with EADDRINUSE: {owner}");
        told.push((address, Instant::now()));
    }
}

async fn owner_of(port: u16) -> Owner {
    let until = Instant::now() + PATIENCE;
    loop {
        match blocking::run(move || owner::of_port(port)).await {
            Owner::Unknown if Instant::now() < until => tokio::time::sleep(LOOK).await,
            found => return found,
        }
    }
}
