//! What each request is answered: the routes, and the limits on scraping.
//!
//! It knows no sockets.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prometheus::{Encoder, Registry, TEXT_FORMAT, TextEncoder};
use tokio::sync::watch;
use tower::{BoxError, ServiceExt};

use super::readiness::Readiness;
use super::serve::AdminState;
use crate::http::{self, Bounded};
use crate::private::exposition::Exposition;
use crate::private::scrape::Scraper;

/// How many scrapes may run at once; further ones are refused.
pub(super) const SCRAPES: usize = 4;

/// How long a scrape may take.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

const PATHS: &str = "/metrics, /livez and /readyz";

pub(super) type Answer = Response<Full<Bytes>>;

/// Answers requests. Clones share the limits, which are on scrapes alone: a flood of them must not let a probe
/// fail and get the program restarted.
#[derive(Clone)]
pub(super) struct Answers {
    readiness: watch::Receiver<Readiness>,
    scrape: Bounded<(), Answer>,
}

impl Answers {
    pub(super) fn new(state: AdminState) -> Self {
        let (registry, scraper) = (state.registry, state.scraper);
        let work = move |()| scrape(registry.clone(), scraper.clone());
        let scrape = http::bounded(SCRAPES, SCRAPE_TIMEOUT, work);
        Self { readiness: state.readiness, scrape }
    }

    /// The answer to one request, whose body is not read.
    pub(super) async fn answer<B>(self, request: Request<B>) -> Result<Answer, Infallible> {
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/livez" | "/readyz") {
            return Ok(plain(StatusCode::NOT_FOUND, format!("not found: there are {PATHS}")));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(method_not_allowed());
        }
        Ok(match path {
            "/livez" => plain(StatusCode::OK, "ok"),
            "/readyz" => ready(&self.readiness.borrow()),
            _ => self.scrape.oneshot(()).await.unwrap_or_else(|error| refusal(&error)),
        })
    }
}

/// Reads and encodes the metrics, off the caller's thread: a worker may have very many open files to count, and much to
/// tell of itself.
async fn scrape(registry: Registry, scraper: Option<Scraper>) -> Result<Answer, BoxError> {
    let pages = match &scraper {
        Some(scraper) => scraper.fetch().await,
        None => Vec::new(),
    };
    let text = tokio::task::spawn_blocking(move || {
        let mut of_workers = Exposition::default();
        for page in pages {
            let left_out = of_workers.add(page.worker, &page.text);
            if let Some(scraper) = &scraper {
                scraper.count_errors(page.worker, left_out);
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text)?;
        text.extend_from_slice(of_workers.into_text().as_bytes());
        Ok::<_, prometheus::Error>(text)
    })
    .await??;
    let mut answer = Response::new(Full::from(text));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
    Ok(answer)
}

fn ready(readiness: &Readiness) -> Answer {
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    plain(status, readiness.to_string())
}

fn refusal(error: &BoxError) -> Answer {
    if error.is::<tower::load_shed::error::Overloaded>() {
        let sentence = format!("overloaded: {SCRAPES} scrapes are running");
        plain(StatusCode::SERVICE_UNAVAILABLE, sentence)
    } else if error.is::<tower::timeout::error::Elapsed>() {
        plain(StatusCode::SERVICE_UNAVAILABLE, "reading the metrics took too long")
    } else {
        tracing::error!(%error, "cannot answer a scrape");
        plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the metrics: {error}"))
    }
}

fn method_not_allowed() -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

fn plain(status: StatusCode, sentence: impl Into<String>) -> Answer {
    let mut answer = Response::new(Full::from(sentence.into() + "\n"));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
