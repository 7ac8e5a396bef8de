//! What passes through an app, as the control socket shows it: counts since its clusterd was started, and how many wait.
//!
//! Rates and quantiles are made of two of them, by whoever asks.

use serde::{Deserialize, Serialize};

/// The counts of an app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Traffic {
    /// Connections accepted from clients.
    pub accepted: u64,
    /// Those that were closed before a worker took them.
    pub rejected: u64,
    /// Those that were given to another worker because the first one did not take them.
    pub redispatched: u64,
    /// How many wait for a worker now.
    pub queued: u64,
    /// From accepting a connection to giving it to a worker.
    pub queue_wait: Histogram,
    /// From giving a connection to a worker until it has taken it.
    pub handoff: Histogram,
    /// The kernel's queues of connections that nobody has accepted yet, where it tells of them.
    #[serde(default)]
    pub listen_queues: Vec<ListenQueue>,
    /// From accepting a connection to its end; this and what follows with `--connection-stats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Histogram>,
    /// The smoothed round-trip time of a connection at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt: Option<Histogram>,
    /// Bytes that clients have sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// Bytes that clients have acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// Segments that were sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmitted_segments: Option<u64>,
}

/// The kernel's queues of a public address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct ListenQueue {
    /// The address.
    pub listener: String,
    /// How many connections nobody has accepted yet.
    pub connections: u64,
    /// How many there may be.
    pub limit: u64,
    /// How many packets were dropped there, first of all handshakes that found the queue full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}

/// How long something took, as a histogram of Prometheus has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Histogram {
    /// How many there were.
    pub count: u64,
    /// How long they took together.
    pub sum_seconds: f64,
    /// How many took at most so long, from the shortest time to the longest.
    pub buckets: Vec<Bucket>,
}

/// How many took at most so long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Bucket {
    /// So long.
    pub seconds: f64,
    /// So many.
    pub count: u64,
}

impl Histogram {
    /// This and another one together. Both have the same bounds, or one is empty.
    pub(crate) fn plus(mut self, other: &Self) -> Self {
        if self.buckets.is_empty() {
            return other.clone();
        }
        self.count += other.count;
        self.sum_seconds += other.sum_seconds;
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(bucket, other)| bucket.count += other.count);
        self
    }

    /// What has come since an earlier one. One that cannot be earlier, because it counts more, is as if it were empty: the
    /// clusterd of the app was started anew.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let same_bounds = self.buckets.len() == earlier.buckets.len()
            && self.buckets.iter().zip(&earlier.buckets).all(|(now, then)| now.seconds == then.seconds);
        if earlier.count > self.count || !same_bounds {
            return self.clone();
        }
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        let less = |(now, then): (&Bucket, &Bucket)| Bucket {
            seconds: now.seconds,
            count: now.count.saturating_sub(then.count),
        };
        Self {
            count: self.count - earlier.count,
            sum_seconds: (self.sum_seconds - earlier.sum_seconds).max(0.0),
            buckets: pairs.map(less).collect(),
        }
    }

    /// The time within which this part of them was done, in seconds, as `histogram_quantile` of Prometheus estimates it:
    /// evenly spread within a bucket, and the last bound where it is beyond that. `None` where there are none.
    pub(crate) fn quantile(&self, part: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let rank = part * self.count as f64;
        let (mut lower, mut below) = (0.0, 0);
        for bucket in &self.buckets {
            if bucket.count as f64 >= rank && bucket.count > below {
                let share = (rank - below as f64) / (bucket.count - below) as f64;
                return Some(lower + (bucket.seconds - lower) * share);
            }
            (lower, below) = (bucket.seconds, bucket.count);
        }
        self.buckets.last().map(|bucket| bucket.seconds)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of times up to a second, up to ten, and beyond.
    fn histogram(short: u64, long: u64, beyond: u64) -> Histogram {
        let buckets =
            vec![Bucket { seconds: 1.0, count: short }, Bucket { seconds: 10.0, count: short + long }];
        Histogram { count: short + long + beyond, sum_seconds: 0.0, buckets }
    }

    #[test]
    fn quantiles_are_estimated_as_prometheus_does() {
        let table = [
            ((0, 0, 0), 0.99, None),
            ((4, 0, 0), 0.5, Some(0.5)),
            ((4, 0, 0), 0.0, Some(0.0)),
            ((0, 2, 0), 0.5, Some(5.5)),
            ((2, 2, 0), 0.75, Some(5.5)),
            ((2, 2, 0), 1.0, Some(10.0)),
            ((1, 0, 9), 0.99, Some(10.0)),
        ];
        for ((short, long, beyond), part, expected) in table {
            assert_eq!(
                histogram(short, long, beyond).quantile(part),
                expected,
                "{short} {long} {beyond}, {part}"
            );
        }
        assert_eq!(Histogram { count: 3, ..Histogram::default() }.quantile(0.5), None, "without buckets");
    }

    #[test]
    fn what_has_come_since_is_the_difference() {
        assert_eq!(histogram(5, 7, 9).since(&histogram(2, 3, 4)), histogram(3, 4, 5));
        assert_eq!(histogram(1, 0, 0).since(&histogram(2, 3, 4)), histogram(1, 0, 0), "it was started anew");
        assert_eq!(histogram(1, 2, 3).since(&Histogram::default()), histogram(1, 2, 3), "there was none");
    }

    #[test]
    fn workers_are_summed_up() {
        let sum = Histogram::default().plus(&histogram(1, 2, 3)).plus(&histogram(10, 20, 30));
        assert_eq!(sum, histogram(11, 22, 33));
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_the_bounds(short in 0u64..9, long in 0u64..9, beyond in 0u64..9, part in 0.0..=1.0) {
            let of_all = histogram(short, long, beyond);
            let quantile = of_all.quantile(part);
            prop_assert_eq!(quantile.is_some(), of_all.count > 0);
            prop_assert!(quantile.is_none_or(|seconds| (0.0..=10.0).contains(&seconds)));
        }
    }
}
