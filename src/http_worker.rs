//! HTTP/1 for the built-in workers: connections from the library `clusterd-worker`, each served until the client or a
//! stop ends it.
//!
//! What is answered is its caller's affair.

use std::convert::Infallible;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::protocol::wire;
use crate::sys::{blocking, event_loop};
use crate::worker::Listener;

/// How many connections are open at most; further ones stay with the primary.
const MAX_CONNECTIONS: u32 = 1024;
/// How long a client may take over a request's header, and may leave a connection unused.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may leave what was sent to it without reading or acknowledging any of it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The most memory that a connection's buffer takes, in bytes: twice what browsers send as a header.
const MAX_BUFFER: usize = 16 * 1024;
/// How long a stopping worker waits for a request that may be on its way on a connection that is open.
const LAST_REQUEST: Duration = Duration::from_millis(300);
/// How long a stopping worker waits for requests that it is answering. Below the default of `--drain-timeout`.
const FINISH: Duration = Duration::from_secs(5);
/// Before the next attempt when there was no descriptor or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Any failure: what to do about it stands in its text.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// What answers requests.
pub(crate) trait Answer: Clone + 'static {
    /// The body of a response.
    type Body: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static;

    /// Answers one request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Self::Body>>;
}

/// Runs a worker called `name` until SIGTERM, SIGINT or the primary ends it, and returns its exit code.
///
/// It listens on the first port in `CLUSTERD_ATTACH_PORTS`, else on `PORT`, else on 3000.
pub(crate) fn run<A: Answer>(name: &str, answer: impl FnOnce() -> Result<A, Failure>) -> ExitCode {
    let served = match blocking::begin().and_then(|()| event_loop::begin()) {
        Ok(runtime) => {
            answer().and_then(|answer| tokio::task::LocalSet::new().block_on(&runtime, serve(answer)))
        }
        Err(error) => Err(error.into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clusterd {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve<A: Answer>(answer: A) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut listener = Listener::bind(port()?).await?;
    let server = Server::new(answer);
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
struct Server<A> {
    answer: A,
    /// A permit for each connection that may be open.
    permits: Arc<Semaphore>,
    /// Whether the server stops.
    stopping: watch::Sender<bool>,
}

impl<A: Answer> Server<A> {
    fn new(answer: A) -> Self {
        Self {
            answer,
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
        let answer = self.answer.clone();
        let stopping = self.stopping.subscribe();
        tokio::task::spawn_local(async move {
            converse(stream, WRITE_TIMEOUT, answer, stopping).await;
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
async fn converse<A: Answer>(
    stream: TcpStream,
    write_timeout: Duration,
    answer: A,
    mut stopping: watch::Receiver<bool>,
) {
    // The kernel ends it (TCP_USER_TIMEOUT, tcp(7)), also where the client has vanished.
    if SockRef::from(&stream).set_tcp_user_timeout(Some(write_timeout)).is_err() {
        return;
    }
    let is_stopping = stopping.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, is_stopping) = (answer.clone(), is_stopping.clone());
        async move {
            let mut response = answer.answer(request).await;
            close_if(*is_stopping.borrow(), &mut response);
            Ok::<_, Infallible>(response)
        }
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

/// The last response closes the connection.
fn close_if<B>(last: bool, response: &mut Response<B>) {
    if last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper::body::Bytes;
    use tokio::io::AsyncWriteExt as _;

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

    /// Answers with more than fits into the buffers of a connection.
    #[derive(Clone)]
    struct Much;

    impl Answer for Much {
        type Body = Full<Bytes>;

        async fn answer(&self, _: Request<Incoming>) -> Response<Full<Bytes>> {
            Response::new(Full::new(vec![b'x'; 64 << 20].into()))
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_not_waited_for_without_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let stopping = watch::Sender::new(false);
        let conversation = converse(stream, Duration::from_millis(300), Much, stopping.subscribe());
        tokio::time::timeout(Duration::from_secs(20), conversation).await.expect("it ends");
        drop(client);
    }

    #[test]
    fn the_last_answer_closes_the_connection() {
        let mut response = Response::new(());
        close_if(false, &mut response);
        assert!(!response.headers().contains_key(CONNECTION));
        close_if(true, &mut response);
        assert_eq!(response.headers()[CONNECTION], "close");
    }
}
