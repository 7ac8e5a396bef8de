//! The connections of the control socket: whose they are is checked, and how many and how slow they may be is bounded.
//!
//! What is answered is decided in `routes` and `handlers`.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;
use tower::ServiceBuilder;

use super::address::SocketAddress;
use super::api::{Code, Problem};
use super::backend::AppBackend;
use super::handlers::ControlState;
use super::hang_up::HangUp;
use super::stream::ControlStream;
use super::{peer, routes};
use crate::http::newest::Newest;
use crate::http::stay::{Followers, Stay};
use crate::http::{self, ACCEPT_PAUSE, ConnectionLimits};
use crate::supervisor::events::Asker;
use crate::tasks;

const LIMITS: ConnectionLimits = ConnectionLimits {
    connections: 64,
    head: Duration::from_secs(5),
    // For a client that follows nothing: one that does not read its answer.
    total: Duration::from_secs(30),
};

/// How many refusals may be under way at once; a further one takes the place of the oldest, whose client asks nothing.
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
    followers: Followers,
    refusals: Newest,
}

/// The clients that have asked something and have no answer yet.
#[derive(Clone, Debug)]
pub(crate) struct Answering {
    connections: Arc<Semaphore>,
    most: usize,
    followers: Followers,
}

impl Answering {
    /// How many there are. Who follows something as long as it likes is none of them.
    pub(crate) fn count(&self) -> usize {
        let connected = self.most.saturating_sub(self.connections.available_permits());
        connected.saturating_sub(self.followers.count())
    }
}

impl Server {
    /// A server of these apps at this socket.
    pub(crate) fn new(
        listener: UnixListener,
        address: SocketAddress,
        apps: Vec<Arc<dyn AppBackend>>,
    ) -> Self {
        Self::with(LIMITS, (listener, address), apps)
    }

    fn with(
        limits: ConnectionLimits,
        (listener, address): (UnixListener, SocketAddress),
        apps: Vec<Arc<dyn AppBackend>>,
    ) -> Self {
        Self {
            listener,
            address,
            router: routes::router(ControlState::new(apps)),
            limits,
            connections: Arc::new(Semaphore::new(limits.connections)),
            followers: Followers::new(limits.connections - limits.connections / 4),
            refusals: Newest::new(REFUSALS),
        }
    }

    /// Who is being answered.
    pub(crate) fn answering(&self) -> Answering {
        let (connections, followers) = (Arc::clone(&self.connections), self.followers.clone());
        Answering { connections, most: self.limits.connections, followers }
    }

    /// Answers for ever.
    pub(crate) async fn serve(mut self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => self.admit(stream.into()).await,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a client at the control socket");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Decides before the first byte is read whether the client is served.
    async fn admit(&mut self, stream: ControlStream) {
        let client = match peer::check_client(&stream, &self.address) {
            Ok(Ok(client)) => client,
            Ok(Err(stranger)) => {
                return self.refuse(stream, Problem::new(Code::Forbidden, stranger.to_string())).await;
            }
            Err(error) => {
                return tracing::debug!(%error, "cannot read the credentials of a client at the control socket");
            }
        };
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            let problem = format!("{} clients are connected already", self.limits.connections);
            let help = "repeat it; who asks nothing has to leave within seconds";
            return self.refuse(stream, Problem::new(Code::Overloaded, problem).help(help)).await;
        };
        let by = Asker::Command { pid: client.pid, uid: client.uid };
        let stay = self.followers.client();
        tasks::spawn(converse(stream, self.router.clone(), by, stay, self.limits, permit));
    }

    /// Answers any request with this problem.
    async fn refuse(&mut self, stream: ControlStream, problem: Problem) {
        let limits = ConnectionLimits { total: REFUSAL_TIMEOUT, ..self.limits };
        let router: Router = Router::new().fallback(async || problem);
        self.refusals.spawn(http::serve_connection(stream, router, limits)).await;
    }
}

async fn converse(
    stream: ControlStream,
    router: Router,
    by: Asker,
    stay: Stay,
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
        () = http::serve_guest(stream, service, limits, stay) => {}
        () = hang_up.happened() => {}
    }
    drop(permit);
}

#[cfg(test)]
mod tests;
