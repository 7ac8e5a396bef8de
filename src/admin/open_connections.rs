//! How many connections each worker has open: asked before each scrape, and whenever somebody else looks.
//!
//! Who knows it, and how, is the caller's concern. It is waited for a moment only: without an answer, a scrape goes without
//! this metric.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry};

use super::pace::pace;
use crate::ids::Slot;

/// How long a scrape waits. It is much less than Prometheus waits for the whole page.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How many connections each worker has open, by its slot.
pub(crate) type Counts = BTreeMap<Slot, usize>;

/// Asks for them; `None` if it cannot be told.
pub(crate) type AskCounts = Box<dyn Fn() -> BoxFuture<'static, Option<Counts>> + Send + Sync>;

/// The metric. Clones share what was asked.
#[derive(Clone)]
pub(crate) struct OpenConnections(Arc<Inner>);

struct Inner {
    ask: AskCounts,
    timeout: Duration,
    /// Locked while an answer is waited for, so that those who ask at the same time share it.
    answered: tokio::sync::Mutex<Option<Answered>>,
    /// The last answer.
    counts: Mutex<Option<Counts>>,
    /// Never filled: it describes the family to the registry.
    template: IntGaugeVec,
}

/// The last answer.
#[derive(Clone, Copy)]
struct Answered {
    at: Instant,
    took: Duration,
}

impl OpenConnections {
    /// Nobody is asked yet.
    pub(crate) fn new(ask: AskCounts) -> Self {
        Self::with(ask, TIMEOUT)
    }

    fn with(ask: AskCounts, timeout: Duration) -> Self {
        Self(Arc::new(Inner {
            ask,
            timeout,
            answered: tokio::sync::Mutex::default(),
            counts: Mutex::default(),
            template: gauges(),
        }))
    }

    /// Shows them in the metrics of this registry.
    ///
    /// # Errors
    /// A metric of this name is registered already.
    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.clone()))
    }

    /// How many there are, for somebody who looks again and again: the last answer, unless one is due by [`pace`].
    pub(crate) async fn counts(&self) -> Option<Counts> {
        let asking = async {
            let last = *self.0.answered.lock().await;
            if last.is_none_or(|last| last.at.elapsed() >= pace(last.took)) {
                self.ask(Instant::now()).await;
            }
        };
        tokio::time::timeout(self.0.timeout, asking).await.ok()?;
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks anew, unless an answer comes meanwhile that somebody else has asked for.
    pub(crate) async fn refresh(&self) {
        let asked = Instant::now();
        if tokio::time::timeout(self.0.timeout, self.ask(asked)).await.is_err() {
            tracing::debug!("the workers' open connections could not be counted in time for a scrape");
        }
    }

    async fn ask(&self, asked: Instant) {
        let mut answered = self.0.answered.lock().await;
        if answered.is_some_and(|answered| answered.at >= asked) {
            return;
        }
        // If there is no answer in time, there is none: an old one would be taken for the present.
        self.set(None);
        let begun = Instant::now();
        let counts = (self.0.ask)().await;
        self.set(counts);
        *answered = Some(Answered { at: Instant::now(), took: begun.elapsed() });
    }

    fn set(&self, counts: Option<Counts>) {
        *self.0.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

impl std::fmt::Debug for OpenConnections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenConnections")
    }
}

impl Collector for OpenConnections {
    fn desc(&self) -> Vec<&Desc> {
        self.0.template.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Anew each time, so that a worker that is gone leaves none behind.
        let gauges = gauges();
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (slot, count) in counts.iter().flatten() {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            gauges.with_label_values(&[&slot.to_string()]).set(count);
        }
        gauges.collect()
    }
}

fn gauges() -> IntGaugeVec {
    let options =
        Opts::new("clusterd_worker_open_connections", "Connections of clients that the worker has open.");
    IntGaugeVec::new(options, &["worker"]).expect("a valid metric")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// The metric, whose answers wait for permits, and how often it was asked.
    struct Asked {
        open: OpenConnections,
        registry: Registry,
        times: Arc<AtomicUsize>,
        permits: Arc<Semaphore>,
    }

    impl Asked {
        /// The n-th answer is that worker n has n connections open; the third is none.
        fn new(timeout: Duration) -> Self {
            let (times, permits) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
            let registry = Registry::new();
            let (counted, waited) = (Arc::clone(&times), Arc::clone(&permits));
            let ask: AskCounts = Box::new(move || {
                let (time, waited) = (counted.fetch_add(1, Ordering::Relaxed) + 1, Arc::clone(&waited));
                Box::pin(async move {
                    waited.acquire().await.unwrap().forget();
                    (time != 3).then(|| BTreeMap::from([(Slot(u32::try_from(time).unwrap()), time)]))
                })
            });
            let open = OpenConnections::with(ask, timeout);
            open.register(&registry).unwrap();
            Self { open, registry, times, permits }
        }

        fn times(&self) -> usize {
            self.times.load(Ordering::Relaxed)
        }

        /// What a scrape shows: labels and values.
        fn shown(&self) -> Vec<(String, i64)> {
            let families = self.registry.gather();
            let metrics = families.iter().flat_map(|family| family.get_metric());
            metrics
                .map(|metric| {
                    (metric.get_label()[0].value().to_owned(), metric.get_gauge().get_value() as i64)
                })
                .collect()
        }
    }

    #[tokio::test]
    async fn each_scrape_asks_anew_and_shows_no_old_answer() {
        let asked = Asked::new(Duration::from_secs(30));
        assert_eq!(asked.shown(), [], "nobody has asked");
        asked.permits.add_permits(3);
        for expected in [vec![("1".to_owned(), 1)], vec![("2".to_owned(), 2)], vec![]] {
            asked.open.refresh().await;
            assert_eq!(asked.shown(), expected);
        }
        assert_eq!(asked.times(), 3);
    }

    #[tokio::test]
    async fn scrapes_at_the_same_time_share_an_answer() {
        let asked = Asked::new(Duration::from_secs(30));
        let refreshed = futures_util::future::join_all((0..4).map(|_| asked.open.refresh()));
        let permit = async {
            while asked.times() == 0 {
                tokio::task::yield_now().await;
            }
            asked.permits.add_permits(1);
        };
        tokio::join!(refreshed, permit);
        assert_eq!((asked.times(), asked.shown()), (1, vec![("1".to_owned(), 1)]));
    }

    #[tokio::test]
    async fn who_looks_again_at_once_gets_the_same_answer() {
        let asked = Asked::new(Duration::from_secs(30));
        asked.permits.add_permits(2);
        let first = asked.open.counts().await;
        assert_eq!(first, Some(BTreeMap::from([(Slot(1), 1)])));
        assert_eq!((asked.open.counts().await, asked.times()), (first, 1));
        asked.open.refresh().await;
        assert_eq!(asked.open.counts().await, Some(BTreeMap::from([(Slot(2), 2)])), "a scrape has asked");
        assert_eq!(asked.times(), 2);
    }

    #[tokio::test]
    async fn without_an_answer_in_time_a_scrape_goes_without() {
        let asked = Asked::new(Duration::from_millis(1));
        asked.permits.add_permits(1);
        asked.open.refresh().await;
        asked.open.refresh().await;
        assert_eq!((asked.times(), asked.shown()), (2, vec![]));
    }
}
