//! Any request to one worker, for `clusterd curl`: bodies pass through as they come, in both directions.
//!
//! It judges neither the request nor the answer.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Request, Response, Version};
use tokio::net::TcpStream;

use super::conversation::{self, Driver};
use super::{Unreachable, WorkerDialer};
use crate::ids::{WorkerId, WorkerPort};

/// How long the worker may take to take the connection.
const TIMEOUT: Duration = Duration::from_secs(5);

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
pub(crate) enum ExchangeError {
    /// There is no connection.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The worker's answer is not HTTP, or ended too soon.
    #[error("no answer from the worker: {0}")]
    NoAnswer(#[from] hyper::Error),
}

/// The body of an answer, as it comes.
#[derive(Debug)]
pub(crate) struct Answer {
    incoming: Incoming,
    _driver: Driver,
}

/// Sends a request, whose URI is a path with or without a query, to one worker, and returns the answer as soon as its
/// head is there. Dropping the answer closes the connection.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn exchange<B>(
    dialer: &WorkerDialer,
    worker: WorkerId,
    port: WorkerPort,
    request: Request<B>,
) -> Result<Response<Answer>, ExchangeError>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let stream = dialer.connect(worker, port, TIMEOUT).await?;
    Ok(over(stream, request).await?)
}

async fn over<B>(stream: TcpStream, mut request: Request<B>) -> hyper::Result<Response<Answer>>
where
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
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
    use http_body_util::BodyExt;
    use hyper::{Method, StatusCode};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::*;
    use crate::private::pair;

    /// A body that comes piece by piece.
    struct Pieces(mpsc::Receiver<&'static str>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece.into()))))
        }
    }

    async fn read_up_to(server: &mut TcpStream, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            text.push(server.read_u8().await.unwrap().into());
        }
        text
    }

    #[tokio::test]
    async fn bodies_pass_through_as_they_come_in_both_directions() {
        let (client, server, _) = pair::connected(crate::front::arrival::Arrival::V4).await.unwrap();
        let mut server = TcpStream::from_std(server.into()).unwrap();
        let (upload, body) = mpsc::channel(1);
        let request = Request::builder()
            .method(Method::PUT)
            .uri("/files?name=a")
            .header("te", "trailers")
            .header("host", "example.org")
            .body(Pieces(body))
            .unwrap();
        let asking = tokio::spawn(over(client, request));
        let head = read_up_to(&mut server, "\r\n\r\n").await;
        assert!(head.starts_with("PUT /files?name=a HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: example.org") && !head.contains("trailers"), "{head}");
        upload.send("one").await.unwrap();
        read_up_to(&mut server, "one\r\n").await;
        server
            .write_all(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n")
            .await
            .unwrap();
        server.write_all(b"3\r\nfir\r\n").await.unwrap();

        let mut response = asking.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x"]);
        let frame = response.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "fir");
        upload.send("two").await.unwrap();
        read_up_to(&mut server, "two\r\n").await;
        server.write_all(b"2\r\nst\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(response.collect().await.unwrap().to_bytes(), "st");
        // The connection is closed with the answer.
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap_or_default();
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_no_answer() {
        let (client, server, _) = pair::connected(crate::front::arrival::Arrival::V4).await.unwrap();
        let mut server = TcpStream::from_std(server.into()).unwrap();
        let asking = tokio::spawn(over(client, Request::new(String::new())));
        read_up_to(&mut server, "\r\n\r\n").await;
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(1 << 20));
        // It is closed before all of it is sent.
        let _ = server.write_all(long.as_bytes()).await;
        assert!(asking.await.unwrap().is_err());
    }

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
