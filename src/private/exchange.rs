//! Any request to one worker, for `clusterd curl`: bodies pass through as they come, in both directions.
//!
//! It judges neither the request nor the answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Request, Response, Version};

use super::conversation::{self, Driver};
use super::{Doors, Unreachable};
use crate::ids::{WorkerId, WorkerPort};

/// How long the worker may take to take the connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is about one connection only (RFC 9110, 7.6.1), and not to be passed on from one to another.
const OF_ONE_CONNECTION: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// There is no connection.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The worker's answer is not HTTP, or ended too soon.
    #[error("no answer from the worker: {0}")]
    NoAnswer(#[from] hyper::Error),
}

/// The body of an answer, as it comes.
#[derive(Debug)]
pub struct Answer {
    incoming: Incoming,
    _driver: Driver,
}

/// Sends a request, whose URI is a path with or without a query, to one worker, and returns the answer as soon as its
/// head is there. Dropping the answer closes the connection.
///
/// # Errors
/// Why there is no answer.
pub async fn exchange<B>(
    doors: &Doors,
    worker: WorkerId,
    port: WorkerPort,
    mut request: Request<B>,
) -> Result<Response<Answer>, ExchangeError>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let stream = doors.connect(worker, port, PATIENCE).await?;
    strip(request.headers_mut());
    *request.version_mut() = Version::HTTP_11;
    let (mut response, driver) = conversation::ask(stream, request).await?;
    strip(response.headers_mut());
    Ok(response.map(|incoming| Answer { incoming, _driver: driver }))
}

fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        named.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in named.iter().chain(&OF_ONE_CONNECTION) {
        headers.remove(name);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_one_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-type", "text/plain"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);
    }
}
