//! What was counted, as the next image of clusterd goes on from it: Prometheus is to see no counter fall.
//!
//! What is measured now (gauges, the version) is not in it, nor what the kernel counts.

use std::collections::HashMap;

use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{HistogramVec, IntCounter, IntCounterVec};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::Metrics;

/// All that was counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MetricsSnapshot {
    counters: Vec<CounterSnapshot>,
    histograms: Vec<HistogramSnapshot>,
}

/// One series of a counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CounterSnapshot {
    series: SeriesName,
    value: u64,
}

/// One histogram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistogramSnapshot {
    pub(super) series: SeriesName,
    pub(super) count: u64,
    pub(super) sum: Exact,
    /// From the lowest bound to the highest.
    pub(super) buckets: Vec<BucketSnapshot>,
}

/// What was counted up to a bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BucketSnapshot {
    pub(super) upto: Exact,
    pub(super) count: u64,
}

/// What a series is called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeriesName {
    family: String,
    /// Names and values, in the order of the names.
    labels: Vec<(String, String)>,
}

/// A number that comes back bit by bit, which a number in JSON does not in every reader. A sum that is a trifle less is taken
/// for one that has begun anew.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Exact(pub(super) f64);

impl From<Exact> for String {
    fn from(Exact(number): Exact) -> Self {
        number.to_string()
    }
}

impl TryFrom<String> for Exact {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number.map(Self).ok_or("not a finite number")
    }
}

impl SeriesName {
    pub(super) fn of(family: &str, metric: &Metric) -> Self {
        let labels = metric.get_label().iter();
        let labels = labels.map(|label| (label.name().to_owned(), label.value().to_owned())).collect();
        Self { family: family.to_owned(), labels }
    }

    fn labels(&self) -> HashMap<&str, &str> {
        self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

/// A family of counters.
enum Counters<'a> {
    /// Without labels.
    One(&'a IntCounter),
    /// One for each value of its labels.
    Many(&'a IntCounterVec),
}

impl Counters<'_> {
    fn collector(&self) -> &dyn Collector {
        match self {
            Self::One(counter) => *counter,
            Self::Many(counters) => *counters,
        }
    }

    /// Goes on from there. Whether there is such a series.
    fn add(&self, counted: &CounterSnapshot) -> bool {
        let found = match self {
            Self::One(counter) => counted.series.labels.is_empty().then(|| (*counter).clone()),
            Self::Many(counters) => counters.get_metric_with(&counted.series.labels()).ok(),
        };
        found.inspect(|counter| counter.inc_by(counted.value)).is_some()
    }
}

impl Metrics {
    /// All that was counted until now.
    pub(crate) fn snapshot(&self) -> MetricsSnapshot {
        let counters = self.counters().into_iter().flat_map(|counters| counters.collector().collect());
        let histograms = self.histograms().into_iter().flat_map(|histogram| histogram.collect());
        MetricsSnapshot {
            counters: counters.flat_map(|family| series(family, CounterSnapshot::of)).collect(),
            histograms: histograms.flat_map(|family| series(family, HistogramSnapshot::of)).collect(),
        }
    }

    /// Goes on from what an image before has counted. What is not counted any more is left out.
    pub(crate) fn restore(&self, snapshot: &MetricsSnapshot) {
        for counted in &snapshot.counters {
            let counters = self.counters();
            let family = counters.iter().find(|counters| is_of(counters.collector(), &counted.series));
            if !family.is_some_and(|family| family.add(counted)) {
                debug!(name = counted.series.family, "this is not counted any more");
            }
        }
        for counted in &snapshot.histograms {
            if self.makes_series(&counted.series) {
                self.before.goes_on_from(counted.clone());
            } else {
                debug!(name = counted.series.family, "this is not counted any more");
            }
        }
    }

    /// Has this histogram be shown. Whether there can be one.
    fn makes_series(&self, series: &SeriesName) -> bool {
        let makes = |of_workers: &HistogramVec| {
            is_of(of_workers, series) && of_workers.get_metric_with(&series.labels()).is_ok()
        };
        let is = |one| is_of(one, series) && series.labels.is_empty();
        is(&self.queue_wait)
            || is(&self.handoff)
            || makes(&self.connections.duration)
            || makes(&self.connections.rtt)
    }

    fn counters(&self) -> [Counters<'_>; 15] {
        use Counters::{Many, One};
        [
            One(&self.accepted),
            Many(&self.handed),
            One(&self.redispatched),
            Many(&self.rejected),
            Many(&self.late),
            Many(&self.restarts),
            Many(&self.reloads),
            Many(&self.hooks),
            Many(&self.messages),
            Many(&self.health_failures),
            Many(&self.scrape_errors),
            Many(&self.lines_dropped),
            Many(&self.connections.received),
            Many(&self.connections.sent),
            Many(&self.connections.retransmitted),
        ]
    }
}

impl CounterSnapshot {
    fn of(series: SeriesName, metric: &Metric) -> Self {
        // Prometheus reads it as such a number, too.
        Self { series, value: metric.get_counter().get_value() as u64 }
    }
}

impl HistogramSnapshot {
    fn of(series: SeriesName, metric: &Metric) -> Self {
        let counted = metric.get_histogram();
        let buckets = counted.get_bucket().iter().map(|bucket| BucketSnapshot {
            upto: Exact(bucket.upper_bound()),
            count: bucket.cumulative_count(),
        });
        Self {
            series,
            count: counted.get_sample_count(),
            sum: Exact(counted.get_sample_sum()),
            buckets: buckets.collect(),
        }
    }
}

/// Each series of a family, written down in this way.
fn series<T>(family: MetricFamily, of: impl Fn(SeriesName, &Metric) -> T) -> Vec<T> {
    let metrics = family.get_metric().iter();
    metrics.map(|metric| of(SeriesName::of(family.name(), metric), metric)).collect()
}

fn is_of(family: &dyn Collector, series: &SeriesName) -> bool {
    family.desc().iter().any(|desc| desc.fq_name == series.family)
}

#[cfg(test)]
mod tests {
    use prometheus::proto::MetricType;

    use super::*;
    use crate::carry::testing::carried;

    /// All that Prometheus would see of what is counted.
    fn counted(metrics: &Metrics) -> Vec<MetricFamily> {
        let mut families = metrics.registry.gather();
        families.retain(|family| family.get_field_type() != MetricType::GAUGE);
        families
    }

    /// Every counter has counted something, and every histogram.
    fn everything() -> Metrics {
        let metrics = Metrics::new();
        for (number, counters) in (1..).zip(metrics.counters()) {
            match counters {
                Counters::One(counter) => counter.inc_by(number),
                Counters::Many(counters) => {
                    let names = counters.desc()[0].variable_labels.clone();
                    for value in ["1", "12"] {
                        let values: Vec<_> = names.iter().map(|_| value).collect();
                        counters.with_label_values(&values).inc_by(number * 10);
                    }
                }
            }
        }
        observe(&metrics);
        metrics
    }

    fn observe(metrics: &Metrics) {
        for seconds in [0.1, 0.2, 1e-7, 1e6 / 3.0] {
            metrics.queue_wait.observe(seconds);
            metrics.handoff.observe(seconds * 1e-3);
            metrics.connections.duration.with_label_values(&["1"]).observe(seconds);
            metrics.connections.rtt.with_label_values(&["12"]).observe(seconds);
        }
    }

    #[test]
    fn the_next_image_shows_the_same_counts_and_goes_on_from_them() {
        let before = everything();
        let (snapshot, _) = carried(&before.snapshot());
        let after = Metrics::new();
        after.workers.with_label_values(&["online"]).set(4);
        after.restore(&snapshot);
        assert_eq!(counted(&after), counted(&before));
        for metrics in [&before, &after] {
            observe(metrics);
            metrics.rejected.with_label_values(&["shutdown"]).inc();
        }
        let (snapshot, _) = carried(&after.snapshot());
        let third = Metrics::new();
        third.restore(&snapshot);
        let (expected, found) = (counted(&before), counted(&third));
        for (expected, found) in expected.iter().zip(&found) {
            for (expected, found) in expected.get_metric().iter().zip(found.get_metric()) {
                let (expected, found) = (expected.get_histogram(), found.get_histogram());
                assert!((expected.get_sample_sum() - found.get_sample_sum()).abs() < 1e-6);
                assert_eq!(expected.get_sample_count(), found.get_sample_count());
                assert_eq!(expected.get_bucket(), found.get_bucket());
            }
        }
        assert_eq!((third.snapshot(), third.accepted.get()), (snapshot, 1));
        assert_eq!(third.counted(&third.queue_wait).get_sample_count(), 8);
    }

    #[test]
    fn what_is_not_known_is_left_out_and_what_is_no_number_is_refused() {
        let series = |family: &str, labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            SeriesName { family: family.to_owned(), labels }
        };
        let all = [
            series("clusterd_of_old_total", &[]),
            series("clusterd_connections_accepted_total", &[("worker", "1")]),
            series("clusterd_connections_handed_total", &[("slot", "1")]),
            series("clusterd_queue_wait_seconds", &[("worker", "1")]),
            series("clusterd_worker_connection_rtt_seconds", &[]),
        ];
        let counter = |series| CounterSnapshot { series, value: 1 };
        let histogram =
            |series| HistogramSnapshot { series, count: u64::MAX, sum: Exact(1.0), buckets: vec![] };
        let snapshot = MetricsSnapshot {
            counters: all.clone().map(counter).into(),
            histograms: all.map(histogram).into(),
        };
        let metrics = Metrics::new();
        metrics.restore(&snapshot);
        assert_eq!(counted(&metrics), counted(&Metrics::new()));
        for number in ["\"NaN\"", "\"inf\"", "\"1e400\"", "\"\"", "1.5"] {
            assert!(serde_json::from_str::<Exact>(number).is_err(), "{number}");
        }
    }

    #[test]
    fn counts_that_cannot_be_do_no_harm() {
        let series = SeriesName { family: "clusterd_queue_wait_seconds".to_owned(), labels: vec![] };
        let bucket = |upto, count| BucketSnapshot { upto: Exact(upto), count };
        let buckets = vec![bucket(1e9, 7), bucket(0.02, u64::MAX), bucket(-1.0, 3)];
        let counted = HistogramSnapshot { series, count: u64::MAX, sum: Exact(-1e308), buckets };
        let metrics = Metrics::new();
        metrics.queue_wait.observe(0.1);
        metrics.restore(&MetricsSnapshot { counters: vec![], histograms: vec![counted; 2] });
        assert_eq!(metrics.counted(&metrics.queue_wait).get_sample_count(), u64::MAX);
        metrics.registry.gather();
    }

    #[test]
    fn a_histogram_with_other_bounds_goes_on_with_what_is_surely_below_each() {
        let series = SeriesName { family: "clusterd_queue_wait_seconds".to_owned(), labels: vec![] };
        let bucket = |upto, count| BucketSnapshot { upto: Exact(upto), count };
        let buckets = vec![bucket(0.02, 5), bucket(0.5, 7)];
        let counted = HistogramSnapshot { series, count: 9, sum: Exact(40.0), buckets };
        let metrics = Metrics::new();
        metrics.queue_wait.observe(0.1);
        metrics.restore(&MetricsSnapshot { counters: vec![], histograms: vec![counted] });
        let shown = metrics.counted(&metrics.queue_wait);
        let upto = |bound: f64| {
            let bucket = shown.get_bucket().iter().find(|bucket| bucket.upper_bound() == bound);
            bucket.unwrap().cumulative_count()
        };
        assert_eq!([0.01, 0.03, 0.1, 1.0].map(upto), [0, 5, 6, 8]);
        assert_eq!((shown.get_sample_count(), shown.get_sample_sum()), (10, 40.1));
    }
}
