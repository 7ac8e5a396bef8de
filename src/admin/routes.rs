//! The routes of the admin port: `/metrics`, `/livez`, `/readyz` and the page, and the limits on scraping.
//!
//! It knows no sockets.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, StatusCode};
use prometheus::{Encoder, Registry, TEXT_FORMAT, TextEncoder};
use tokio::sync::watch;
use tower::{BoxError, ServiceExt};

use super::open_connections::OpenConnections;
use super::readiness::Readiness;
use super::serve::AdminState;
use crate::http::{self, Bounded};
use crate::private::exposition::Exposition;
use crate::private::scrape::Scraper;
use crate::sys::blocking;
use crate::web::own::{self, OwnPage};

/// How many scrapes may run at once; further ones are refused.
pub(super) const SCRAPES: usize = 4;

/// How long a scrape may take.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// The methods of every path.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// Builds the router. Its clones share the limits, which are on scrapes alone: a flood of them must not let a probe
/// fail and get the program restarted.
pub(super) fn router(state: AdminState, listener: SocketAddr) -> Router {
    let AdminState { registry, scraper, open_connections, readiness, app } = state;
    let work = move |()| scrape(registry.clone(), scraper.clone(), open_connections.clone());
    let scrapes = http::bounded(SCRAPES, SCRAPE_TIMEOUT, work);
    Router::new()
        .route("/livez", get("ok\n"))
        .route("/readyz", get(ready).options(ready_by_options).with_state(readiness))
        .route("/metrics", get(metrics).with_state(scrapes))
        .merge(own::router(OwnPage::new(app, listener)))
        .method_not_allowed_fallback(other_method)
        .fallback((StatusCode::NOT_FOUND, "not found: use /metrics, /livez, /readyz, or / for the page\n"))
}

async fn ready(State(readiness): State<watch::Receiver<Readiness>>) -> (StatusCode, String) {
    let readiness = readiness.borrow();
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", *readiness))
}

/// HAProxy's `option httpchk /readyz` asks by this method, and looks at the status.
async fn ready_by_options(readiness: State<watch::Receiver<Readiness>>) -> Response {
    let allow = [(ALLOW, METHODS)];
    match ready(readiness).await {
        (StatusCode::OK, _) => (StatusCode::NO_CONTENT, allow).into_response(),
        (not_ready, text) => (not_ready, allow, text).into_response(),
    }
}

async fn metrics(State(scrapes): State<Bounded<(), Vec<u8>>>) -> Response {
    match scrapes.oneshot(()).await {
        Ok(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => refusal(&error).into_response(),
    }
}

async fn other_method(method: Method) -> Response {
    let allow = [(ALLOW, METHODS)];
    match method {
        Method::OPTIONS => (StatusCode::NO_CONTENT, allow).into_response(),
        _ => (StatusCode::METHOD_NOT_ALLOWED, allow, "method not allowed: use GET or HEAD\n").into_response(),
    }
}

/// Reads and encodes the metrics, off the caller's thread: a worker may have very many open files to count, and many
/// metrics of its own.
async fn scrape(
    registry: Registry,
    scraper: Option<Scraper>,
    open_connections: OpenConnections,
) -> Result<Vec<u8>, BoxError> {
    let pages = async {
        match &scraper {
            Some(scraper) => scraper.fetch().await,
            None => Vec::new(),
        }
    };
    let (pages, ()) = tokio::join!(pages, open_connections.refresh());
    let encoded = blocking::run(move || {
        let mut of_workers = Exposition::default();
        for page in pages {
            let left_out = of_workers.add(page.worker, &page.text, page.format);
            if let Some(scraper) = &scraper {
                scraper.count_left_out(page.worker, &left_out);
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text)?;
        text.extend_from_slice(of_workers.into_text().as_bytes());
        Ok::<_, prometheus::Error>(text)
    });
    Ok(encoded.await?)
}

fn refusal(error: &BoxError) -> (StatusCode, String) {
    if error.is::<tower::load_shed::error::Overloaded>() {
        (StatusCode::SERVICE_UNAVAILABLE, format!("overloaded: {SCRAPES} scrapes are running\n"))
    } else if error.is::<tower::timeout::error::Elapsed>() {
        let limit = humantime::format_duration(SCRAPE_TIMEOUT);
        (StatusCode::SERVICE_UNAVAILABLE, format!("reading the metrics took longer than {limit}\n"))
    } else {
        tracing::error!(%error, "cannot answer a scrape");
        (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read the metrics: {error}\n"))
    }
}
