//! Fetches the metrics that workers serve themselves, for clusterd's own `/metrics`.
//!
//! What they are made of is read in [`exposition`](super::exposition).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use prometheus::IntCounterVec;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::exposition::{Format, LeftOut};
use super::question::Question;
use super::{Unreachable, WorkerDialer, conversation};
use crate::ids::{Slot, WorkerId, WorkerPort};
use crate::supervisor::Overview;
use crate::supervisor::lifecycle::Phase;

/// How long all workers together may take, and each of them, since they are asked at once.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The longest page of a worker, in bytes.
const LONGEST_PAGE: usize = 1 << 20;

/// Where workers' metrics are. Clones fetch the same.
#[derive(Clone, Debug)]
pub(crate) struct Scraper {
    dialer: WorkerDialer,
    status: watch::Receiver<Arc<Overview>>,
    target: Target,
    errors: IntCounterVec,
}

#[derive(Clone, Debug)]
struct Target {
    port: WorkerPort,
    question: Question,
}

/// What a worker tells of itself.
#[derive(Debug)]
pub(crate) struct Page {
    /// Which worker.
    pub worker: Slot,
    /// The text.
    pub text: Bytes,
    /// What it is written in.
    pub format: Format,
}

#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("no answer: {0}")]
    NoAnswer(#[from] hyper::Error),
    #[error("its page is longer than {LONGEST_PAGE} bytes")]
    TooLong,
    #[error("the response was cut short: {0}")]
    Cut(Box<dyn std::error::Error + Send + Sync>),
    #[error("it took longer than {TIMEOUT:?}")]
    TimedOut,
}

impl Scraper {
    /// Asks this of the listeners that workers have on `port`; what fails is counted by worker.
    pub(crate) fn new(
        dialer: WorkerDialer,
        status: watch::Receiver<Arc<Overview>>,
        port: WorkerPort,
        question: Question,
        errors: IntCounterVec,
    ) -> Self {
        Self { dialer, status, target: Target { port, question }, errors }
    }

    /// The pages of all workers that are online, in the order of their slots; without those of workers that fail to
    /// give theirs within a second.
    pub(crate) async fn fetch(&self) -> Vec<Page> {
        let mut fetching = JoinSet::new();
        for worker in self.online() {
            self.errors.with_label_values(&[&worker.slot.to_string()]);
            let (dialer, target) = (self.dialer.clone(), self.target.clone());
            fetching.spawn(async move {
                let fetched = timeout(TIMEOUT, page(&dialer, worker, target)).await;
                (worker.slot, fetched.unwrap_or(Err(ScrapeError::TimedOut)))
            });
        }
        let mut pages = Vec::new();
        while let Some(fetched) = fetching.join_next().await {
            match fetched {
                Ok((worker, Ok((text, format)))) => pages.push(Page { worker, text, format }),
                Ok((_, Err(ScrapeError::Unreachable(reason)))) if reason.is_leaving() => {}
                Ok((worker, Err(error))) => {
                    debug!(%worker, %error, "cannot fetch a worker's metrics");
                    self.count_errors(worker, 1);
                }
                Err(_) => {}
            }
        }
        pages.sort_unstable_by_key(|page| page.worker);
        pages
    }

    /// Counts what could not be used of a worker's page, and tells the first of it.
    pub(crate) fn count_left_out(&self, worker: Slot, left_out: &LeftOut) {
        if let Some((line, reason)) = &left_out.first {
            let lines = left_out.lines;
            debug!(%worker, lines, ?line, "left out of the worker's metrics: {reason}");
        }
        self.count_errors(worker, left_out.lines);
    }

    fn count_errors(&self, worker: Slot, errors: u64) {
        self.errors.with_label_values(&[&worker.to_string()]).inc_by(errors);
    }

    /// One launch of each slot: the newest, while one replaces another.
    fn online(&self) -> Vec<WorkerId> {
        let status = self.status.borrow();
        let online = status.workers.iter().filter(|worker| worker.phase == Phase::Online);
        let launches = online.filter_map(|worker| Some(worker.running?.0));
        let mut newest: BTreeMap<Slot, WorkerId> = BTreeMap::new();
        for launch in launches {
            let known = newest.entry(launch.slot).or_insert(launch);
            *known = launch.max(*known);
        }
        newest.into_values().collect()
    }
}

async fn page(
    dialer: &WorkerDialer,
    worker: WorkerId,
    target: Target,
) -> Result<(Bytes, Format), ScrapeError> {
    let stream = dialer.connect(worker, target.port, TIMEOUT).await?;
    let mut request = target.question.request();
    let accepted = HeaderValue::from_static("text/plain;version=0.0.4,*/*;q=0.1");
    request.headers_mut().entry(ACCEPT).or_insert(accepted);
    let (response, _driver) = conversation::ask(stream, request).await?;
    if response.status() != StatusCode::OK {
        return Err(ScrapeError::Status(response.status()));
    }
    let format = format(response.headers());
    match Limited::new(response.into_body(), LONGEST_PAGE).collect().await {
        Ok(page) => Ok((page.to_bytes(), format)),
        Err(error) if error.is::<LengthLimitError>() => Err(ScrapeError::TooLong),
        Err(error) => Err(ScrapeError::Cut(error)),
    }
}

/// Whoever does not say is taken to write the text format, as Prometheus does it.
fn format(headers: &HeaderMap) -> Format {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/openmetrics-text") { Format::OpenMetrics } else { Format::Text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_tells_the_format() {
        let table = [
            (None, Format::Text),
            (Some("text/plain; version=0.0.4"), Format::Text),
            (Some("application/json"), Format::Text),
            (Some("application/openmetrics-text; version=1.0.0; charset=utf-8"), Format::OpenMetrics),
            (Some("Application/OpenMetrics-Text"), Format::OpenMetrics),
        ];
        for (kind, expected) in table {
            let headers = kind.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind)));
            assert_eq!(format(&headers.into_iter().collect()), expected, "{kind:?}");
        }
    }
}
