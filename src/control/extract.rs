//! What handlers take from a request: the app and the worker that its path names, the body of a command, and the format
//! of a stream.
//!
//! What it cannot take is refused with a [`Problem`]; it answers nothing else.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use hyper::{StatusCode, Uri};
use serde::Deserialize;
use tokio::time::timeout;

use super::api::{Code, Problem, Verb};
use super::backend::AppBackend;
use super::handlers::ControlState;
use crate::ids::Slot;

/// How long the body of a command may be, in bytes.
const LONGEST_BODY: usize = 4 * 1024;

/// How long it may be if it brings an environment: execve(2) takes no more than 6 MiB.
const LONGEST_ENVIRONMENT: usize = 8 * 1024 * 1024;

/// How long the body of this command may be, in bytes. The extensions of its requests have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LongestBody(pub(super) usize);

impl LongestBody {
    pub(super) fn of(verb: Verb) -> Self {
        match verb {
            Verb::Reload | Verb::Restart | Verb::Start => Self(LONGEST_ENVIRONMENT),
            Verb::Scale | Verb::Stop | Verb::Signal | Verb::Reset | Verb::Upgrade => Self(LONGEST_BODY),
        }
    }
}

/// How long a client may take to send it.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The app that the path names.
pub(super) struct NamedApp(pub(super) Arc<dyn AppBackend>);

impl FromRequestParts<ControlState> for NamedApp {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ControlState) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Names {
            app: String,
        }
        let Names { app } = names(parts).await?;
        state.app(&app).map(Self)
    }
}

/// The worker that the path names, which may not exist.
pub(super) struct NamedWorker(pub(super) Slot);

impl<S: Sync> FromRequestParts<S> for NamedWorker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Names {
            worker: String,
        }
        let Names { worker } = names(parts).await?;
        worker_of(&worker).map(Self)
    }
}

/// The worker of this number, which may not exist.
pub(super) fn worker_of(number: &str) -> Result<Slot, Problem> {
    number.parse().ok().filter(|&number| number > 0).map(Slot).ok_or_else(|| {
        Problem::new(Code::NotFound, format!("there is no worker {number}"))
            .help("workers are numbered from 1")
    })
}

async fn names<T>(parts: &mut Parts) -> Result<T, Problem>
where
    T: for<'de> Deserialize<'de> + Send,
{
    let names = Path::<T>::from_request_parts(parts, &()).await;
    names.map(|Path(names)| names).map_err(|rejection| Problem::new(Code::BadRequest, rejection.body_text()))
}

/// What the worker is asked for: the rest of the path as the client wrote it, and the query.
pub(super) struct WorkerPath(pub(super) Uri);

impl<S: Sync> FromRequestParts<S> for WorkerPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // After `/v1/apps/{app}/workers/{worker}/http/`.
        let rest = parts.uri.path().splitn(8, '/').nth(7).unwrap_or_default();
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("/{rest}{query}");
        path.parse().map(Self).map_err(|error| {
            Problem::new(Code::BadRequest, format!("{path}: not a valid path for a worker: {error}"))
        })
    }
}

/// The body of a command, in JSON or empty.
pub(super) struct CommandBody(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for CommandBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let longest = request.extensions().get().map_or(LONGEST_BODY, |&LongestBody(longest)| longest);
        let wrong = |message| Err(Problem::new(Code::BadRequest, message));
        let body = match timeout(BODY_TIMEOUT, Bytes::from_request(request, state)).await {
            Ok(Ok(body)) => body,
            Ok(Err(rejection)) if is_too_long(&rejection) => {
                return wrong(format!("the body is longer than {longest} bytes"));
            }
            Ok(Err(rejection)) => return wrong(format!("cannot read the body: {}", rejection.body_text())),
            Err(_) => return wrong(format!("the body did not arrive within {BODY_TIMEOUT:?}")),
        };
        match content_type.filter(|_| !body.is_empty()) {
            Some(kind) if !is_json(kind.to_str().unwrap_or_default()) => Err(not_json()),
            _ => Ok(Self(body)),
        }
    }
}

fn is_too_long(rejection: &BytesRejection) -> bool {
    rejection.status() == StatusCode::PAYLOAD_TOO_LARGE
}

fn not_json() -> Problem {
    Problem::new(Code::UnsupportedMediaType, "the Content-Type of the body is not JSON")
        .help("send it with the header Content-Type: application/json, as curl --json does")
}

/// `application/json`, or another type in the syntax of JSON (RFC 6839).
fn is_json(content_type: &str) -> bool {
    let kind = essence(content_type);
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// A media type without its parameters.
fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// How the objects of a stream are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamFormat {
    /// One a line.
    JsonLines,
    /// As an `EventSource` reads them, for clients that accept `text/event-stream`.
    ServerSentEvents,
}

impl StreamFormat {
    fn accepted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut kinds = accepted.flat_map(|value| value.split(',')).map(essence);
        if kinds.any(|kind| kind == "text/event-stream") { Self::ServerSentEvents } else { Self::JsonLines }
    }
}

impl<S: Sync> FromRequestParts<S> for StreamFormat {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::accepted(&parts.headers))
    }
}
