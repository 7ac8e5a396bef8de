//! HTTP/1 as clusterd serves it: one request a connection, bounded in size, number and time.
//!
//! What is answered, and who may ask, is decided where it is used.

use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};

/// The longest head of a request, in bytes; the least that hyper can be told.
pub const LONGEST_HEAD: usize = 8 * 1024;

/// How many headers a request may have.
pub const MOST_HEADERS: usize = 64;

/// How long to wait when a connection cannot be accepted, mostly for want of descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Work of which only so much is done at once, and only for so long.
pub type Bounded<Request, Answer> = BoxCloneSyncService<Request, Answer, BoxError>;

/// Answers one request, whose head may take so long; without keep-alive an idle client takes no place from others.
pub async fn converse<S>(stream: impl AsyncRead + AsyncWrite + Unpin, service: S, head: Duration)
where
    S: HttpService<Incoming, Error: Into<BoxError>, ResBody: 'static>,
    <S::ResBody as Body>::Error: Into<BoxError>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .keep_alive(false)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    // A client that sent garbage or went away is not worth a message: it would fill the logs.
    let _ = connection.await;
}

/// Does `most` pieces of `work` at once and refuses further ones ([`Overloaded`](tower::load_shed::error::Overloaded));
/// gives up one that takes longer than `time` ([`Elapsed`](tower::timeout::error::Elapsed)).
pub fn bounded<Request, Answer, Doing>(
    most: usize,
    time: Duration,
    work: impl Fn(Request) -> Doing + Clone + Send + Sync + 'static,
) -> Bounded<Request, Answer>
where
    Request: Send + 'static,
    Answer: Send + 'static,
    Doing: Future<Output = Result<Answer, BoxError>> + Send + 'static,
{
    let limited = ServiceBuilder::new().load_shed().concurrency_limit(most).service_fn(work);
    // In a task of its own, work whose client is gone keeps its place until its thread is free.
    let bounded = ServiceBuilder::new().timeout(time).service_fn(move |request| {
        let running = tokio::spawn(limited.clone().oneshot(request));
        async move { running.await? }
    });
    BoxCloneSyncService::new(bounded)
}
