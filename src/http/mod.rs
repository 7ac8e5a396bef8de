//! HTTP/1 connections of the control socket, of the admin port and of the page: one request each, bounded in size, number
//! and time.
//!
//! What is answered, and who may ask, is decided where it is used. [`newest`] bounds their number, and [`stay`] their time;
//! [`tcp`] accepts them from the network.

pub(crate) mod newest;
pub(crate) mod stay;
pub(crate) mod tcp;

use std::convert::Infallible;
use std::time::Duration;

use self::stay::Stay;
use axum::Extension;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

use crate::tasks;

/// The longest head of a request, in bytes; the least that hyper can be told.
pub(crate) const LONGEST_HEAD: usize = 8 * 1024;

/// How many headers a request may have.
pub(crate) const MOST_HEADERS: usize = 64;

/// How long to wait when a connection cannot be accepted, mostly for want of descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the clients of one listening socket may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// How many connections are open at once.
    pub connections: usize,
    /// How long a client may take to send the head of its request.
    pub head: Duration,
    /// How long a connection may take in all, with a client that reads slowly.
    pub total: Duration,
}

/// Answers the one request of a connection, within these limits; who follows something stays longer. The request has the
/// [`Stay`] among its extensions.
pub(crate) async fn serve_guest<S>(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    service: S,
    limits: ConnectionLimits,
    stay: Stay,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone,
{
    let service = ServiceBuilder::new().layer(Extension(stay.clone())).service(service);
    let unlimited = ConnectionLimits { total: Duration::MAX, ..limits };
    tokio::select! {
        // What a client asked for before it left is done.
        biased;
        () = serve_connection(stream, service, unlimited) => {}
        () = stay.is_over(limits.total) => {}
    }
}

/// Work of which only so much is done at once, and only for so long.
pub(crate) type Bounded<Input, Output> = BoxCloneSyncService<Input, Output, BoxError>;

/// Answers the one request of a connection, within these limits. A client may close its sending side after the request;
/// without keep-alive an idle client takes no place from others.
pub(crate) async fn serve_connection<S>(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    service: S,
    limits: ConnectionLimits,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .half_close(true)
        .keep_alive(false)
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    // A client that sent garbage, went away or was too slow is not worth a message: it would fill the logs.
    let _ = time::timeout(limits.total, connection).await;
}

/// Does `most` pieces of `work` at once and refuses further ones ([`Overloaded`](tower::load_shed::error::Overloaded));
/// gives up one that takes longer than `time` ([`Elapsed`](tower::timeout::error::Elapsed)).
pub(crate) fn bounded<Input, Output, Working>(
    most: usize,
    time: Duration,
    work: impl Fn(Input) -> Working + Clone + Send + Sync + 'static,
) -> Bounded<Input, Output>
where
    Input: Send + 'static,
    Output: Send + 'static,
    Working: Future<Output = Result<Output, BoxError>> + Send + 'static,
{
    let limited = ServiceBuilder::new().load_shed().concurrency_limit(most).service_fn(work);
    // In a task of its own, work whose client is gone keeps its place until its thread is free.
    let bounded = ServiceBuilder::new().timeout(time).service_fn(move |input| {
        let running = tasks::spawn(limited.clone().oneshot(input));
        async move { running.await? }
    });
    BoxCloneSyncService::new(bounded)
}
