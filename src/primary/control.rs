//! The control socket of this clusterd: what it says of itself, and that it listens.
//!
//! What is said over it is the control room's.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{debug, warn};

use super::public_sockets::Ports;
use crate::admin::Readiness;
use crate::connections;
use crate::control::address::SocketGuard;
use crate::control::api::Address;
use crate::control::backend::{Profile, SupervisedApp};
use crate::control::home::Home;
use crate::control::server::Server;
use crate::front;
use crate::metrics::Metrics;
use crate::private::WorkerDialer;
use crate::settings::Config;
use crate::supervisor;

/// What runs here, and where clients connect to.
pub(super) fn profile(config: &Config, ports: &Ports) -> Profile {
    let addresses = ports.iter().flat_map(|(port, sockets)| {
        sockets.iter().map(|socket| Address { address: socket.address(), worker_port: port.0 })
    });
    Profile {
        name: config.name.clone(),
        namespace: config.namespace.clone(),
        addresses: addresses.collect(),
        started: SystemTime::now(),
    }
}

/// Listens until what is returned is dropped. Without it, clusterd serves all the same.
pub(super) fn open(
    profile: Profile,
    supervisor: &supervisor::Handle,
    metrics: &Metrics,
    front: &front::handle::Handle,
    connections: &connections::Handle,
    readiness: watch::Receiver<Readiness>,
) -> Option<SocketGuard> {
    let dialer = WorkerDialer::new(front.clone());
    let claimed = Home::of_this_process().listen(&profile.name).and_then(|(listener, guard)| {
        let (supervisor, connections) = (supervisor.clone(), connections.clone());
        let app = SupervisedApp::new(profile, supervisor, metrics.clone(), dialer, connections, readiness);
        Ok((Server::new(listener, guard.address().clone(), vec![Arc::new(app)])?, guard))
    });
    match claimed {
        Ok((server, guard)) => {
            debug!(socket = %guard.address(), "control socket");
            tokio::spawn(server.serve());
            Some(guard)
        }
        Err(error) => {
            warn!("no control socket; commands cannot reach this clusterd: {error}");
            None
        }
    }
}
