//! Answers in JSON: one object, or a stream of them as lines or as server-sent events.
//!
//! What is answered is decided by the handlers.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use hyper::header::CONTENT_TYPE;
use serde::Serialize;

use super::api::{JSON_LINES, Problem, Refusal};
use super::extract::StreamFormat;

/// An object, with a newline after it: people read it on terminals.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], line(&self.0)).into_response()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.code.status(), Json(Refusal { error: self })).into_response()
    }
}

impl StreamFormat {
    /// An answer whose body has these items, as they come.
    pub(super) fn respond<T: Serialize + 'static>(
        self,
        items: impl Stream<Item = T> + Send + 'static,
    ) -> Response {
        match self {
            StreamFormat::JsonLines => {
                let lines = items.map(|item| Ok::<_, Infallible>(line(&item)));
                ([(CONTENT_TYPE, JSON_LINES)], Body::from_stream(lines)).into_response()
            }
            StreamFormat::ServerSentEvents => {
                let events = items.map(|item| Ok::<_, Infallible>(sse::Event::default().data(text(&item))));
                Sse::new(events).into_response()
            }
        }
    }
}

fn line(object: &impl Serialize) -> Bytes {
    (text(object) + "\n").into()
}

fn text(object: &impl Serialize) -> String {
    serde_json::to_string(object).expect("plain structures can be written")
}
