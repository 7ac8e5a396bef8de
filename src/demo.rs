//! The built-in hello server: an ordinary worker, like any other server in Rust that uses the library `clusterd-worker`.
//!
//! It shows that a cluster works and how a worker stops gracefully. It knows nothing that other workers do not.
//!
//! It uses the library rather than the shim, so that `clusterd` without a command also runs where no shim can be
//! preloaded into clusterd's own program: in a static build, and with `--attach node`.

use std::convert::Infallible;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::protocol::wire;
use crate::worker::Listener;

/// How many connections are open at most; further ones stay with the primary.
const MAX_CONNECTIONS: u32 = 1024;
/// How long a client may take over a request's header, and may leave a connection unused.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most memory that a connection's buffer takes, in bytes: twice what browsers send as a header.
const MAX_BUFFER: usize = 16 * 1024;
/// How long a stopping worker waits for a request that may be on its way on a connection that is open.
const LAST_REQUEST: Duration = Duration::from_millis(300);
/// How long a stopping worker waits for requests that it is answering. Below the default of `--drain-timeout`.
const FINISH: Duration = Duration::from_secs(5);
/// Before the next attempt when there was no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Runs the hello server until SIGTERM, SIGINT or the primary ends it, and returns its exit code.
///
/// It listens on the first port in `CLUSTERD_ATTACH_PORTS`, else on `PORT`, else on 3000.
pub(crate) fn demo_main() -> ExitCode {
    // It was started by a link in /proc, whose name would be shown instead.
    let _ = rustix::thread::set_name(c"clusterd-demo");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = match runtime {
        Ok(runtime) => runtime.block_on(serve()),
        Err(error) => Err(error.into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clusterd demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Any failure: what to do about it stands in its text.
type Failure = Box<dyn std::error::Error>;

async fn serve() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut listener = Listener::bind(port()?).await?;
    let server = Server::new();
    let ended = tokio::select! {
        ended = server.accept(&mut listener) => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // What the channel still holds goes back to the primary, and what is open is finished.
    drop(listener);
    server.finish().await;
    Ok(ended?)
}

/// The port to listen on, as the environment tells it.
fn port() -> Result<u16, Failure> {
    let ports = std::env::var(wire::ENV_PORTS).ok();
    first_port(ports.as_deref(), std::env::var("PORT").ok().as_deref()).map_err(Failure::from)
}

fn first_port(ports: Option<&str>, port: Option<&str>) -> Result<u16, String> {
    let first = ports.filter(|ports| *ports != wire::ANY_PORT).and_then(|ports| ports.split(',').next());
    let Some(text) = first.filter(|text| !text.is_empty()).or(port) else {
        return Ok(3000);
    };
    text.trim()
        .parse()
        .map_err(|_| format!("cannot listen on port {text:?}: set PORT to a number from 0 to 65535"))
}

/// What every connection shares.
struct Server {
    greeting: Bytes,
    /// A permit for each connection that may be open.
    permits: Arc<Semaphore>,
    /// Whether the server stops.
    stopping: watch::Sender<bool>,
}

impl Server {
    fn new() -> Self {
        let worker = std::env::var("CLUSTERD_WORKER_ID").ok();
        Self {
            greeting: greeting(worker.as_deref(), std::process::id()).into(),
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS as usize)),
            stopping: watch::Sender::new(false),
        }
    }

    /// Serves connections until no further one comes.
    async fn accept(&self, listener: &mut Listener) -> io::Result<()> {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned().await.expect("never closed");
            match listener.accept().await {
                Ok(Some((stream, _))) => self.spawn(stream, permit),
                Ok(None) => return Ok(()),
                Err(error) if is_fatal(&error) => return Err(error),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn spawn(&self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let greeting = self.greeting.clone();
        let stopping = self.stopping.subscribe();
        tokio::spawn(async move {
            converse(stream, greeting, stopping).await;
            drop(permit);
        });
    }

    /// Waits, not without end, until every connection is closed.
    async fn finish(self) {
        self.stopping.send_replace(true);
        let _ = tokio::time::timeout(FINISH, self.permits.acquire_many(MAX_CONNECTIONS)).await;
    }
}

/// A listener that a clusterd no longer feeds, or that speaks another protocol, will bring nothing again.
fn is_fatal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
}

/// Answers the requests on one connection. How it fails is its client's affair.
async fn converse(stream: TcpStream, greeting: Bytes, mut stopping: watch::Receiver<bool>) {
    let is_stopping = stopping.clone();
    let service = service_fn(move |_: Request<Incoming>| {
        let response = hello(greeting.clone(), *is_stopping.borrow());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let stop = async {
        let _ = stopping.wait_for(|stopping| *stopping).await;
        // A client may have sent its request already. hyper would close an idle connection at once.
        tokio::time::sleep(LAST_REQUEST).await;
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn hello(greeting: Bytes, last: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(greeting));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if last {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn greeting(worker: Option<&str>, pid: u32) -> String {
    match worker {
        Some(worker) => format!("hello from worker {worker} (pid {pid})\n"),
        None => format!("hello (pid {pid})\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_port_that_is_served_wins() {
        let cases = [
            (None, None, Ok(3000)),
            (None, Some("8080"), Ok(8080)),
            (Some("4000,4001"), Some("8080"), Ok(4000)),
            (Some(""), Some("8080"), Ok(8080)),
            (Some(""), None, Ok(3000)),
        ];
        for (ports, port, expected) in cases {
            assert_eq!(first_port(ports, port), expected, "{ports:?} {port:?}");
        }
        assert!(first_port(None, Some("http")).unwrap_err().contains("\"http\""));
    }

    #[test]
    fn the_greeting_names_the_worker() {
        assert_eq!(greeting(Some("2"), 1234), "hello from worker 2 (pid 1234)\n");
        assert_eq!(greeting(None, 1234), "hello (pid 1234)\n");
    }

    #[test]
    fn the_last_answer_closes_the_connection() {
        assert_eq!(hello(Bytes::new(), true).headers()[CONNECTION], "close");
        assert!(!hello(Bytes::new(), false).headers().contains_key(CONNECTION));
    }
}
