//! Private connections: clusterd's own, to one worker, by the way on which clients' connections come.
//!
//! One end is handed to the worker as the next connection on its listener, and this process speaks at the other. So a
//! worker can be asked something that must not be answered by another one. What is asked:
//!
//! - [`probe`]: whether it answers; [`health`] asks that again and again.
//! - [`scrape`]: its own metrics, which [`exposition`] joins with those of the others.
//! - [`exchange`]: whatever `clusterd curl` asks.
//!
//! The first two ask a [`question`].
//!
//! It decides nothing about workers: the supervisor replaces one that is unhealthy.

mod conversation;
pub(crate) mod exchange;
pub(crate) mod exposition;
pub(crate) mod health;
mod pair;
pub(crate) mod probe;
pub(crate) mod question;
pub(crate) mod scrape;

use std::io;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::front::arrival::Arrival;
use crate::front::connection::Connection;
use crate::front::handle::Handle;
use crate::front::private::Undelivered;
use crate::ids::{ServiceId, WorkerId, WorkerPort};

/// The way in to each worker. Clones lead to the same workers.
#[derive(Clone, Debug)]
pub(crate) struct WorkerDialer {
    front: Handle,
}

/// Why there is no private connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// This machine has no connection to itself.
    #[error("cannot make a connection over 127.0.0.1: {0}")]
    Loopback(#[from] io::Error),
    /// The worker has not got it.
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    /// The worker has not taken it in time.
    #[error("the worker took no connection within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
}

impl Unreachable {
    /// Whether that is because the worker is about to end, or has ended: nothing is wrong with it then.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self, Unreachable::Undelivered(Undelivered::Retired | Undelivered::Gone))
    }
}

impl WorkerDialer {
    /// Whether workers accept by themselves, so that none can be given a connection.
    pub(crate) fn workers_accept(&self) -> bool {
        self.front.workers_accept()
    }

    /// Connections that go through this front.
    pub(crate) fn new(front: Handle) -> Self {
        Self { front }
    }

    /// A connection to the listener that this worker has on `port`, once the worker has taken it: within `time`.
    ///
    /// # Errors
    /// Why the worker has not got it; nothing of it is left.
    pub(crate) async fn connect(
        &self,
        worker: WorkerId,
        port: WorkerPort,
        time: Duration,
    ) -> Result<TcpStream, Unreachable> {
        let until = Instant::now() + time;
        let connecting = async {
            let service = ServiceId::Port(port);
            // Where it does not listen, the front says why it gets nothing.
            let arrival = self.front.how_to_arrive(worker, service).await.unwrap_or(Arrival::V4);
            let (ours, socket, peer) = pair::connected(arrival).await?;
            let (accepted, socket) = (Instant::now(), socket.into());
            let connection = Connection { socket, peer: peer.into(), arrival, accepted };
            self.front.deliver(worker, service, connection, until).await?;
            Ok(ours)
        };
        timeout(time, connecting).await.unwrap_or(Err(Unreachable::TimedOut(time)))
    }
}
