//! The control socket of this clusterd: what it says of itself, and that it listens.
//!
//! What is said over it is the control room's.

use std::sync::Arc;
use std::time::SystemTime;

use tracing::{debug, warn};

use super::listen::Ports;
use crate::config::Config;
use crate::control::api::Address;
use crate::control::app::{Profile, Running};
use crate::control::place::{Claim, Home};
use crate::control::server::Server;
use crate::front;
use crate::metrics::Metrics;
use crate::private::Doors;
use crate::supervisor;

/// What runs here, and where clients connect to.
pub fn profile(config: &Config, ports: &Ports) -> Profile {
    let addresses = ports.iter().flat_map(|(port, sockets)| {
        sockets.iter().map(|socket| Address { address: socket.address(), worker_port: port.0 })
    });
    Profile { name: config.name.clone(), addresses: addresses.collect(), started: SystemTime::now() }
}

/// Listens until what is returned is dropped. Without it, clusterd serves all the same.
pub fn open(
    profile: Profile,
    supervisor: &supervisor::Handle,
    metrics: &Metrics,
    front: &front::handle::Handle,
) -> Option<Claim> {
    let doors = Doors::new(front.clone());
    let claimed = Home::of_this_process().claim(&profile.name).and_then(|(listener, claim)| {
        let app = Running::new(profile, supervisor.clone(), metrics.clone(), doors);
        Ok((Server::new(listener, claim.place().clone(), vec![Arc::new(app)])?, claim))
    });
    match claimed {
        Ok((server, claim)) => {
            debug!(socket = %claim.place(), "control socket");
            tokio::spawn(server.serve());
            Some(claim)
        }
        Err(error) => {
            warn!(
                "there is no control socket, so `clusterd list` and the like cannot reach this clusterd: {error}"
            );
            None
        }
    }
}
