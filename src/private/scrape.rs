//! Fetches the metrics that workers serve themselves, for clusterd's own `/metrics`.
//!
//! What they are made of is read in [`exposition`](super::exposition).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, HeaderValue};
use prometheus::IntCounterVec;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

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
                Ok((worker, Ok(text))) => pages.push(Page { worker, text }),
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

    /// Counts what could not be used of a worker's page.
    pub(crate) fn count_errors(&self, worker: Slot, errors: u64) {
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

async fn page(dialer: &WorkerDialer, worker: WorkerId, target: Target) -> Result<Bytes, ScrapeError> {
    let stream = dialer.connect(worker, target.port, TIMEOUT).await?;
    let mut request = target.question.request();
    let format = HeaderValue::from_static("text/plain;version=0.0.4,*/*;q=0.1");
    request.headers_mut().entry(ACCEPT).or_insert(format);
    let (response, _driver) = conversation::ask(stream, request).await?;
    if response.status() != StatusCode::OK {
        return Err(ScrapeError::Status(response.status()));
    }
    match Limited::new(response.into_body(), LONGEST_PAGE).collect().await {
        Ok(page) => Ok(page.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ScrapeError::TooLong),
        Err(error) => Err(ScrapeError::Cut(error)),
    }
}
