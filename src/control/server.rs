//! The connections of the control socket: whose they are is checked, and how many and how slow they may be is bounded.
//!
//! What is answered is decided in `routes` and `handlers`.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;
use tower::ServiceBuilder;

use super::address::SocketAddress;
use super::api::{Code, Problem};
use super::backend::AppBackend;
use super::handlers::ControlState;
use super::hang_up::HangUp;
use super::{peer, routes};
use crate::http::{self, ACCEPT_PAUSE, ConnectionLimits};
use crate::supervisor::events::Asker;

const LIMITS: ConnectionLimits = ConnectionLimits {
    connections: 64,
    head: Duration::from_secs(5),
    // Events go on for as long as somebody follows them.
    total: Duration::MAX,
};

/// How many refusals may be under way at once; further clients are closed without an answer.
const REFUSALS: usize = 16;

/// How long a refusal may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A server that listens.
pub(crate) struct Server {
    listener: UnixListener,
    address: SocketAddress,
    router: Router,
    limits: ConnectionLimits,
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Server {
    /// A server of these apps at this socket, which is non-blocking.
    ///
    /// # Errors
    /// The socket cannot be watched (epoll_ctl(2)).
    pub(crate) fn new(
        listener: StdListener,
        address: SocketAddress,
        apps: Vec<Arc<dyn AppBackend>>,
    ) -> io::Result<Self> {
        Self::with(LIMITS, listener, address, apps)
    }

    fn with(
        limits: ConnectionLimits,
        listener: StdListener,
        address: SocketAddress,
        apps: Vec<Arc<dyn AppBackend>>,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            address,
            router: routes::router(ControlState::new(apps)),
            limits,
            connections: Arc::new(Semaphore::new(limits.connections)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
        })
    }

    /// Answers for ever.
    pub(crate) async fn serve(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => self.admit(stream),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a client at the control socket");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Decides before the first byte is read whether the client is served.
    fn admit(&self, stream: UnixStream) {
        let client = match peer::check_client(&stream, &self.address) {
            Ok(Ok(client)) => client,
            Ok(Err(stranger)) => {
                return self.refuse(stream, Problem::new(Code::Forbidden, stranger.to_string()));
            }
            Err(error) => {
                return tracing::debug!(%error, "cannot read the credentials of a client at the control socket");
            }
        };
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            let problem = format!("{} clients are connected already", self.limits.connections);
            let help = "close clients that follow events (clusterd events)";
            return self.refuse(stream, Problem::new(Code::Overloaded, problem).help(help));
        };
        let by = Asker::Command { pid: client.pid, uid: client.uid };
        tokio::spawn(converse(stream, self.router.clone(), by, self.limits, permit));
    }

    /// Answers any request with this problem.
    fn refuse(&self, stream: UnixStream, problem: Problem) {
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        let limits = ConnectionLimits { total: REFUSAL_TIMEOUT, ..self.limits };
        let router: Router = Router::new().fallback(async || problem);
        tokio::spawn(async move {
            http::serve_connection(stream, router, limits).await;
            drop(permit);
        });
    }
}

async fn converse(
    stream: UnixStream,
    router: Router,
    by: Asker,
    limits: ConnectionLimits,
    permit: OwnedSemaphorePermit,
) {
    let hang_up = match HangUp::of(&stream) {
        Ok(hang_up) => hang_up,
        Err(error) => return tracing::debug!(%error, "cannot watch a client of the control socket"),
    };
    let service = ServiceBuilder::new().layer(Extension(by)).service(router);
    tokio::select! {
        // What a client asked for before it left is done.
        biased;
        () = http::serve_connection(stream, service, limits) => {}
        () = hang_up.happened() => {}
    }
    drop(permit);
}

#[cfg(test)]
mod tests;
