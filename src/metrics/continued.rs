//! Histograms that go on from what an image of clusterd before this one has counted.
//!
//! A histogram of `prometheus` counts from zero and cannot be set: what was counted before is kept here, and added wherever it
//! is shown.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, MetricFamily};

use super::snapshot::{HistogramSnapshot, SeriesName};

/// What was counted before. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Before(Arc<Mutex<Vec<HistogramSnapshot>>>);

impl Before {
    /// From now on this is added to what is counted.
    pub(super) fn goes_on_from(&self, counted: HistogramSnapshot) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(counted);
    }

    /// The same histograms with what was counted before.
    pub(super) fn and(&self, counts: impl Collector + 'static) -> Continued {
        Continued { counts: Box::new(counts), before: self.clone() }
    }

    /// All that was counted in this series, of which `now` is what this image has counted.
    pub(super) fn with(&self, series: &SeriesName, now: &Histogram) -> Histogram {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        before.iter().filter(|before| before.series == *series).fold(now.clone(), plus)
    }
}

/// Histograms of one family, or several, with what was counted before.
pub(super) struct Continued {
    counts: Box<dyn Collector>,
    before: Before,
}

impl Collector for Continued {
    fn desc(&self) -> Vec<&Desc> {
        self.counts.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.counts.collect();
        for family in &mut families {
            let name = family.name().to_owned();
            for metric in family.mut_metric() {
                let all = self.before.with(&SeriesName::of(&name, metric), metric.get_histogram());
                metric.set_histogram(all);
            }
        }
        families
    }
}

/// Where the bounds are not the same, only what was surely below one counts for it.
fn plus(mut all: Histogram, before: &HistogramSnapshot) -> Histogram {
    all.set_sample_count(all.get_sample_count().saturating_add(before.count));
    all.set_sample_sum(all.get_sample_sum() + before.sum.0);
    let buckets = all.get_bucket().iter().map(|bucket| {
        let below = before.buckets.iter().rfind(|before| before.upto.0 <= bucket.upper_bound());
        let mut sum = Bucket::default();
        sum.set_upper_bound(bucket.upper_bound());
        sum.set_cumulative_count(
            bucket.cumulative_count().saturating_add(below.map_or(0, |below| below.count)),
        );
        sum
    });
    let buckets = buckets.collect();
    all.set_bucket(buckets);
    all
}
