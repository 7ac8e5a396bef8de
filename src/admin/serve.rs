//! [`Admin`]: the listening socket, and how many connections it has at a time.
//!
//! What is answered is decided in `routes`.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time;

use super::open_connections::OpenConnections;
use super::readiness::Readiness;
use super::routes;
use crate::carry::CarriedFd;
use crate::control::backend::AppBackend;
use crate::http::newest::Newest;
use crate::http::stay::Followers;
use crate::http::{ConnectionLimits, tcp};
use crate::private::scrape::Scraper;

const LIMITS: ConnectionLimits =
    ConnectionLimits { connections: 64, head: Duration::from_secs(5), total: Duration::from_secs(15) };

/// How long connections may go on after the shutdown.
const DRAIN: Duration = Duration::from_secs(1);

/// How many pages may be open at once.
const PAGES: usize = 16;

/// What the routes read.
#[derive(Clone)]
pub(crate) struct AdminState {
    /// What `/metrics` shows.
    pub registry: Registry,
    /// Adds the metrics of the workers themselves.
    pub scraper: Option<Scraper>,
    /// Counted anew for each scrape.
    pub open_connections: OpenConnections,
    /// What `/readyz` answers.
    pub readiness: watch::Receiver<Readiness>,
    /// What `/` shows.
    pub app: Arc<dyn AppBackend>,
}

/// The listening socket of `--metrics`.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: StdListener,
    address: SocketAddr,
    limits: ConnectionLimits,
    drain: Duration,
}

/// Cannot listen on the address of `--metrics`.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on --metrics {address}: {source}{hint}", hint = hint(.source))]
pub(crate) struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What bind(2) or listen(2) said.
    #[source]
    pub source: io::Error,
}

/// What helps where bind(2) or listen(2) has said this, on a line of its own, or nothing.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            "\nhint: choose an address of this machine, such as 127.0.0.1 or 0.0.0.0"
        }
        io::ErrorKind::PermissionDenied => {
            "\nhint: choose a port from 1024 upwards, or grant CAP_NET_BIND_SERVICE"
        }
        _ => "",
    }
}

impl Admin {
    /// Listens on `address`; port 0 asks the kernel for a free one. Needs no runtime, so that a wrong address is
    /// known before anything is started.
    ///
    /// # Errors
    /// [`BindError`], which names the option and says what would help.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = StdListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, limits: LIMITS, drain: DRAIN })
    }

    /// The listener of the image of clusterd before.
    ///
    /// # Errors
    /// It is no socket.
    pub(crate) fn restore(listener: OwnedFd) -> io::Result<Self> {
        let listener = StdListener::from(listener);
        let address = listener.local_addr()?;
        Ok(Self { listener, address, limits: LIMITS, drain: DRAIN })
    }

    /// Where it listens; the port is the real one.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same, watched by the current runtime.
    ///
    /// # Errors
    /// The socket cannot be watched (epoll_ctl(2)).
    pub(crate) fn watched(self) -> io::Result<Served> {
        let Self { listener, address, limits, drain } = self;
        Ok(Served { listener: TcpListener::from_std(listener)?, address, limits, drain })
    }
}

/// Metrics and probes that clients find.
#[derive(Debug)]
pub(crate) struct Served {
    listener: TcpListener,
    address: SocketAddr,
    limits: ConnectionLimits,
    drain: Duration,
}

impl Served {
    /// The listener, as it is written down for the next image: it is kept as long as this is served.
    pub(crate) fn carried(&self) -> CarriedFd {
        CarriedFd::of(&self.listener)
    }

    /// Answers until `shutdown` completes, then gives open connections one second.
    pub(crate) async fn serve(self, state: AdminState, shutdown: impl Future<Output = ()>) {
        let Self { listener, address, limits, drain } = self;
        let router = routes::router(state, address);
        let mut connections = Newest::new(limits.connections);
        tokio::select! {
            () = shutdown => {}
            () = tcp::serve(&listener, &router, limits, Followers::new(PAGES), &mut connections) => {}
        }
        drop(listener);
        let _ = time::timeout(drain, connections.drain()).await;
    }
}

#[cfg(test)]
mod tests;
