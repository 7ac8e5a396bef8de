// Histograms as clusterd tells them: counts since its start, of what took at most so long.
// What came lately is the difference of two of them. It touches no document.

const hasSameBounds = (now, then) =>
  now.buckets.length === then.buckets.length &&
  now.buckets.every((bucket, at) => bucket.seconds === then.buckets[at].seconds);

/** What has come since an earlier one. One that counts more cannot be earlier: it is as if it were empty. */
export const since = (now, then) => {
  if (!now) return undefined;
  if (!then || then.count > now.count || !hasSameBounds(now, then)) return now;
  return {
    count: now.count - then.count,
    sum_seconds: Math.max(0, now.sum_seconds - then.sum_seconds),
    buckets: now.buckets.map(({ seconds, count }, at) => ({
      seconds,
      count: Math.max(0, count - then.buckets[at].count),
    })),
  };
};

/**
 * The time within which this part of them was done, in seconds, as `histogram_quantile` of Prometheus estimates it: evenly
 * spread within a bucket, and the last bound where it is beyond that. NaN where there are none.
 */
export const quantile = (histogram, part) => {
  if (!histogram || !(histogram.count > 0)) return NaN;
  const rank = part * histogram.count;
  let [lower, below] = [0, 0];
  for (const { seconds, count } of histogram.buckets) {
    if (count >= rank && count > below) return lower + ((seconds - lower) * (rank - below)) / (count - below);
    [lower, below] = [seconds, count];
  }
  return histogram.buckets.length > 0 ? lower : NaN;
};
