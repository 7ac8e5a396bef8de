// Quantiles are those of src/control/api/traffic.rs, which are those of Prometheus.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { quantile, since } from '../histogram.js';

/** Of times up to a second, up to ten, and beyond. */
const histogram = (short, long, beyond) => ({
  count: short + long + beyond,
  sum_seconds: 0,
  buckets: [
    { seconds: 1, count: short },
    { seconds: 10, count: short + long },
  ],
});

test('quantiles are estimated as Prometheus does', () => {
  const table = [
    [[0, 0, 0], 0.99, NaN],
    [[4, 0, 0], 0.5, 0.5],
    [[4, 0, 0], 0, 0],
    [[0, 2, 0], 0.5, 5.5],
    [[2, 2, 0], 0.75, 5.5],
    [[2, 2, 0], 1, 10],
    [[1, 0, 9], 0.99, 10],
  ];
  for (const [counts, part, expected] of table)
    assert.equal(quantile(histogram(...counts), part), expected, `${counts}, ${part}`);
  assert.equal(quantile({ count: 3, sum_seconds: 1, buckets: [] }, 0.5), NaN);
  assert.equal(quantile(undefined, 0.5), NaN);
});

test('what has come since is the difference', () => {
  assert.deepEqual(since(histogram(5, 7, 9), histogram(2, 3, 4)), histogram(3, 4, 5));
  assert.deepEqual(since(histogram(1, 0, 0), histogram(2, 3, 4)), histogram(1, 0, 0), 'it was started anew');
  assert.deepEqual(since(histogram(1, 2, 3), undefined), histogram(1, 2, 3), 'there was none');
  assert.deepEqual(
    since(histogram(1, 2, 3), { ...histogram(0, 0, 0), buckets: [] }),
    histogram(1, 2, 3),
    'other bounds',
  );
  assert.equal(since(undefined, histogram(1, 2, 3)), undefined);
});
