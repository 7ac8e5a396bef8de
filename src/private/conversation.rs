//! One request and its answer over a connection that is there already, as HTTP/1.1.
//!
//! It bounds the head of the answer, and neither time nor bodies: that is for those who ask.

use std::error::Error;

use hyper::Response;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The longest head of an answer, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;

/// How many headers an answer may have.
const MOST_HEADERS: usize = 128;

/// The connection's work. Without it nothing is sent or received any more.
#[derive(Debug)]
pub(super) struct Driver {
    _task: JoinSet<()>,
}

/// Sends a request whose URI is a path, and reads the head of the answer. The connection serves no other.
///
/// # Errors
/// The connection ends too soon, or what comes is not HTTP.
pub(super) async fn ask<B>(
    stream: TcpStream,
    mut request: hyper::Request<B>,
) -> hyper::Result<(Response<Incoming>, Driver)>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LONGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        // Whoever waits for the answer is told of the same error.
        let _ = connection.await;
    });
    let headers = request.headers_mut();
    let agent = concat!("clusterd/", env!("CARGO_PKG_VERSION"));
    headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(agent));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let response = sender.send_request(request).await?;
    Ok((response, Driver { _task: task }))
}
