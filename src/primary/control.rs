//! The control socket of this clusterd: what it says of itself, and that it listens.
//!
//! What is said over it is the control room's.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::public_sockets::Ports;
use crate::control::address::SocketGuard;
use crate::control::api::Address;
use crate::control::backend::{AppBackend as _, Profile, SupervisedApp};
use crate::control::home::{self, Home};
use crate::control::server::Server;
use crate::settings::Config;

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
        counts_moved: config.connection_stats,
    }
}

/// The socket, and how it is made again. Clones are the same one; [`ControlSocket::close`] removes it.
#[derive(Clone)]
pub(super) struct ControlSocket(Arc<Mutex<Option<Listening>>>);

struct Listening {
    app: Arc<SupervisedApp>,
    guard: SocketGuard,
    server: AbortHandle,
}

impl Listening {
    fn begin(app: Arc<SupervisedApp>, (listener, guard): (UnixListener, SocketGuard)) -> io::Result<Self> {
        let server = Server::new(listener, guard.address().clone(), vec![app.clone()])?;
        debug!(socket = %guard.address(), "control socket");
        Ok(Self { app, guard, server: tokio::spawn(server.serve()).abort_handle() })
    }
}

/// Listens from now on. If that fails, clusterd serves all the same.
pub(super) fn open(app: Arc<SupervisedApp>) -> ControlSocket {
    let begun = Home::of_this_process().listen(app.name()).and_then(|claimed| Listening::begin(app, claimed));
    let listening = begun
        .inspect_err(|error| warn!("no control socket; commands cannot reach this clusterd: {error}"))
        .ok();
    ControlSocket(Arc::new(Mutex::new(listening)))
}

impl ControlSocket {
    fn listening(&self) -> MutexGuard<'_, Option<Listening>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens again where the file of the socket was removed; those who are connected stay. Whether it was.
    ///
    /// # Errors
    /// Those of mkdir(2), bind(2) and rename(2).
    pub(super) fn make_whole(&self) -> io::Result<bool> {
        let mut listening = self.listening();
        let Some(before) = listening.as_ref().filter(|now| !now.guard.is_there()) else { return Ok(false) };
        let after = Listening::begin(before.app.clone(), home::listen_again(before.guard.address())?)?;
        before.server.abort();
        *listening = Some(after);
        Ok(true)
    }

    /// Nobody finds it any more.
    pub(super) fn close(&self) {
        *self.listening() = None;
    }
}
