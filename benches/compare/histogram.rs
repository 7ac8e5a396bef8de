//! How long many requests took, in buckets that are at most a 64th part wide; it does not keep single ones.

use std::time::Duration;

/// Buckets of each power of two.
const PARTS: usize = 64;

/// A count for each bucket, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], total: 0 }
    }
}

impl Histogram {
    pub fn add(&mut self, took: Duration) {
        self.counts[bucket(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))] += 1;
        self.total += 1;
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// What this share of all took at most, to the end of a bucket; `None` if there are none.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        reached.map(|index| Duration::from_nanos(end(index)))
    }

    /// How many took longer than this, to the precision of a bucket.
    pub fn longer_than(&self, limit: Duration) -> u64 {
        let of_limit = bucket(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        self.counts[of_limit + 1..].iter().sum()
    }
}

/// The small numbers have a bucket each; then each power of two has [`PARTS`].
fn bucket(nanoseconds: u64) -> usize {
    let bits = 64 - nanoseconds.leading_zeros() as usize;
    let shift = bits.saturating_sub(PARTS.ilog2() as usize + 1);
    shift * PARTS + (nanoseconds >> shift) as usize
}

/// The largest number of a bucket.
fn end(bucket: usize) -> u64 {
    let shift = (bucket / PARTS).saturating_sub(1);
    let part = (bucket - shift * PARTS) as u64;
    (part << shift) + ((1 << shift) - 1)
}
