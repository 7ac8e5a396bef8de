//! What one page gets: all that is known, and then what comes, as server-sent events (HTML, 9.2), one object each.
//!
//! Nothing waits for it. One that has read too slowly is greeted again, and learns everything anew.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use hyper::header::{CONTENT_TYPE, HeaderName};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::hub::{Hub, Joined};

/// How often a comment is sent where there is nothing else, so that no proxy takes the connection for dead.
pub(super) const ALIVE: Duration = Duration::from_secs(15);

/// The comment.
pub(super) const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// What the page is told first.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Greeting {
    pub version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether it may give orders.
    pub actions: bool,
    /// Whether it may ask for logs.
    pub logs: bool,
    /// Whether it may ask for connections.
    pub connections: bool,
    /// Whether it needs the token.
    pub token: bool,
}

impl Greeting {
    /// As the first event.
    pub(super) fn event(&self) -> Bytes {
        let mut event = Vec::new();
        write(&mut event, &serde_json::json!({ "home": self }).to_string());
        event.into()
    }
}

/// Adds an object to a piece of events.
pub(super) fn write(piece: &mut Vec<u8>, object: &str) {
    piece.extend_from_slice(b"data: ");
    piece.extend_from_slice(object.as_bytes());
    piece.extend_from_slice(b"\n\n");
}

/// The answer whose body has these events, as they come.
pub(super) fn respond(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    // For nginx, which otherwise gathers what comes.
    let headers = [(CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("x-accel-buffering"), "no")];
    let events = futures_util::StreamExt::map(events, Ok::<_, Infallible>);
    (headers, Body::from_stream(events)).into_response()
}

/// What a page gets that is open.
struct Open {
    hub: Hub,
    greeting: Bytes,
    joined: Option<Joined>,
}

/// Until the page is closed.
pub(super) fn of_home(hub: Hub, greeting: &Greeting) -> impl Stream<Item = Bytes> + Send + use<> {
    let open = Open { hub, greeting: greeting.event(), joined: None };
    stream::unfold(open, async |mut open| Some((open.next().await?, open)))
}

impl Open {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(joined) = &mut self.joined {
            match timeout(ALIVE, joined.news.recv()).await {
                Ok(Ok(piece)) => return Some(piece),
                Ok(Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) => return None,
                Err(_) => return Some(COMMENT),
            }
        }
        let mut joined = self.hub.join().await?;
        let all = [self.greeting.clone(), std::mem::take(&mut joined.all)].concat();
        self.joined = Some(joined);
        Some(all.into())
    }
}
