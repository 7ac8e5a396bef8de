//! [`Admin`]: the listening socket and its connections, each bounded in number, size and time.
//!
//! What is answered is decided in `answer`.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time;

use super::answer::Answers;
use super::readiness::Readiness;

/// How many connections are open at once; further ones wait in the kernel's backlog.
const CONNECTIONS: usize = 64;

/// How long a client may take to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may take in all, with a client that reads slowly.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// How long connections may go on after the shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest head of a request, in bytes; the least that hyper can be told.
const LONGEST_HEAD: usize = 8 * 1024;

/// How many headers a request may have.
const MOST_HEADERS: usize = 64;

/// How long to wait when a connection cannot be accepted, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the answers are made from.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// What `/metrics` shows.
    pub registry: Registry,
    /// What `/readyz` answers.
    pub readiness: watch::Receiver<Readiness>,
}

/// A listening socket for the administrator's questions.
#[derive(Debug)]
pub struct Admin {
    listener: StdListener,
    address: SocketAddr,
}

/// The address of `--metrics` cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on --metrics {address}: {source}{hint}", hint = hint(.source))]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What bind(2) or listen(2) said.
    #[source]
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; stop the program that listens there, or choose another port",
        io::ErrorKind::AddrNotAvailable => "; choose an address of this machine, as 127.0.0.1 or 0.0.0.0",
        io::ErrorKind::PermissionDenied => "; choose a port from 1024 upwards, or grant CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

impl Admin {
    /// Listens on `address`; port 0 asks the kernel for a free one. Needs no runtime, so that a wrong address is
    /// known before anything is started.
    ///
    /// # Errors
    /// [`BindError`], which names the option and says what would help.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address, source };
        let listener = StdListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens; the port is the real one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` completes, then gives open connections one second.
    ///
    /// # Errors
    /// The socket cannot be watched (epoll_ctl(2)).
    pub async fn serve(self, state: AdminState, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let answers = Answers::new(state);
        let mut connections = JoinSet::new();
        tokio::select! {
            () = shutdown => {}
            () = accept_all(&listener, &answers, &mut connections) => {}
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        let _ = time::timeout(DRAIN_TIMEOUT, drained).await;
        Ok(())
    }
}

/// Accepts for ever.
async fn accept_all(listener: &TcpListener, answers: &Answers, connections: &mut JoinSet<()>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = room.clone().acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, answers.clone(), place));
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection to --metrics");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One request, one answer: without keep-alive an idle client takes no place from others.
async fn converse(stream: TcpStream, answers: Answers, _place: OwnedSemaphorePermit) {
    let service = service_fn(move |request| answers.clone().answer(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    // A client that sent garbage, went away or was too slow is not worth a message: it would fill the logs.
    let _ = time::timeout(CONNECTION_TIMEOUT, connection).await;
}
