//! The control socket of this clusterd: what it says of itself, and that it listens.
//!
//! What is said over it is the control room's.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::public_sockets::Ports;
use crate::carry::{CarriedFd, CarriedFds, Raw};
use crate::control::address::{SocketAddress, SocketGuard};
use crate::control::api::Address;
use crate::control::backend::{AppBackend as _, Profile, SupervisedApp};
use crate::control::home::{self, Home};
use crate::control::server::{Answering, Server};
use crate::settings::Config;
use crate::tasks;

/// What runs here, and where clients connect to.
pub(super) fn profile(config: &Config, ports: &Ports, started: SystemTime) -> Profile {
    let addresses = ports.iter().flat_map(|(port, sockets)| {
        sockets.iter().map(|socket| Address { address: socket.address(), worker_port: port.0 })
    });
    Profile {
        name: config.name.clone(),
        namespace: config.namespace.clone(),
        addresses: addresses.collect(),
        started,
        counts_moved: config.connection_stats,
    }
}

/// The socket, and how it is made again. Clones are the same one; [`ControlSocket::close`] removes it.
#[derive(Clone)]
pub(super) struct ControlSocket(Arc<Mutex<Option<Listening>>>);

struct Listening {
    app: Arc<SupervisedApp>,
    guard: SocketGuard,
    /// The server has it.
    listener: CarriedFd,
    server: AbortHandle,
    answering: Answering,
}

/// The socket as it is written down for the next image of clusterd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ControlSnapshot {
    listener: CarriedFd,
    address: CarriedAddress,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum CarriedAddress {
    File(Raw),
    Abstract(String),
}

impl Listening {
    fn begin(app: Arc<SupervisedApp>, (listener, guard): (UnixListener, SocketGuard)) -> Self {
        let number = CarriedFd::of(&listener);
        let server = Server::new(listener, guard.address().clone(), vec![app.clone()]);
        debug!(socket = %guard.address(), "control socket");
        let answering = server.answering();
        let server = tasks::spawn(server.serve()).abort_handle();
        Self { app, guard, listener: number, server, answering }
    }
}

/// Where the image of clusterd before has listened.
///
/// # Errors
/// Its descriptor is gone, or cannot be watched.
pub(super) fn restore(written: ControlSnapshot, fds: &CarriedFds) -> io::Result<Watched> {
    let address = match written.address {
        CarriedAddress::File(path) => SocketAddress::File(path.into()),
        CarriedAddress::Abstract(name) => SocketAddress::Abstract(name),
    };
    watched((fds.take(written.listener)?.into(), address))
}

/// A listener, and where it is.
pub(super) type Claimed = (StdListener, SocketAddress);

/// The same, watched by the current runtime.
pub(super) type Watched = (UnixListener, SocketAddress);

/// Has it watched.
///
/// # Errors
/// Those of epoll_ctl(2).
pub(super) fn watched<Place>((listener, place): (StdListener, Place)) -> io::Result<(UnixListener, Place)> {
    Ok((UnixListener::from_std(listener)?, place))
}

/// Listens from now on, with the listener that there is already or another. If that fails, clusterd serves all the same.
pub(super) fn open(app: Arc<SupervisedApp>, claimed: Option<Watched>) -> ControlSocket {
    let claimed = match claimed {
        Some((listener, address)) => Ok((listener, SocketGuard::new(address))),
        None => Home::of_this_process().listen(app.name()).and_then(watched),
    };
    let listening = claimed
        .map(|claimed| Listening::begin(app, claimed))
        .inspect_err(|error| warn!("no control socket; commands cannot reach this clusterd: {error}"))
        .ok();
    ControlSocket(Arc::new(Mutex::new(listening)))
}

impl ControlSocket {
    fn listening(&self) -> MutexGuard<'_, Option<Listening>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is written down; `None` if there is none.
    pub(super) fn snapshot(&self) -> Option<ControlSnapshot> {
        let listening = self.listening();
        let listening = listening.as_ref()?;
        let address = match listening.guard.address() {
            SocketAddress::File(path) => CarriedAddress::File(path.as_path().into()),
            SocketAddress::Abstract(name) => CarriedAddress::Abstract(name.clone()),
        };
        Some(ControlSnapshot { listener: listening.listener, address })
    }

    /// Listens again where the file of the socket was removed; those who are connected stay. Whether it was.
    ///
    /// # Errors
    /// Those of mkdir(2), bind(2) and rename(2).
    pub(super) fn make_whole(&self) -> io::Result<bool> {
        let mut listening = self.listening();
        let Some(before) = listening.as_ref().filter(|now| !now.guard.is_there()) else { return Ok(false) };
        let after =
            Listening::begin(before.app.clone(), watched(home::listen_again(before.guard.address())?)?);
        before.server.abort();
        *listening = Some(after);
        Ok(true)
    }

    /// How many clients wait for an answer.
    pub(super) fn answering(&self) -> usize {
        self.listening().as_ref().map_or(0, |listening| listening.answering.count())
    }

    /// Nobody finds it any more.
    pub(super) fn close(&self) {
        *self.listening() = None;
    }
}
