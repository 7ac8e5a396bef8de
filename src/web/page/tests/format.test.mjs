// Numbers look as they do in `clusterd monit`: the tables are those of src/monit/format.rs.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  bytes,
  bytesPerSecond,
  clock,
  count,
  grouped,
  moment,
  percent,
  rate,
  seconds,
  span,
  uptime,
} from '../format.js';

const tells = (shown, table) => {
  for (const [value, expected] of table) assert.equal(shown(value), expected, `${value}`);
};

test('numbers are short', () => {
  tells(rate, [
    [0, '0'],
    [0.04, '0.0'],
    [9.94, '9.9'],
    [9.96, '10'],
    [1_234_567.4, '1,234,567'],
  ]);
  tells(seconds, [
    [0, '0.0 us'],
    [0.000038, '38 us'],
    [0.0009999, '1.0 ms'],
    [0.0012, '1.2 ms'],
    [0.25, '250 ms'],
    [0.9996, '1.0 s'],
    [12, '12 s'],
  ]);
  tells(grouped, [
    [0, '0'],
    [999, '999'],
    [1000, '1,000'],
    [1_234_567, '1,234,567'],
  ]);
  tells(percent, [
    [99.6, '100%'],
    [0, '0%'],
  ]);
  tells(bytes, [
    [0, '0B'],
    [1023, '1023B'],
    [1024, '1.0K'],
    [45 << 20, '45.0M'],
    [3 * 1024 ** 3, '3.0G'],
    [1024 ** 4, '1.0T'],
  ]);
  tells(bytesPerSecond, [[2048, '2.0K/s']]);
});

test('lengths of time have two units at most', () => {
  tells(span, [
    [-5, '0ms'],
    [850, '850ms'],
    [9000, '9s'],
    [61_000, '1m 1s'],
    [3_600_000, '1h'],
    [7_503_000, '2h 5m'],
    [86_400_000 * 3 + 3_600_000 * 4, '3d 4h'],
  ]);
});

test('what runs has run for whole seconds', () => {
  tells(uptime, [
    [999, '0s'],
    [61_999, '1m 1s'],
  ]);
});

test('what is not known is a dash', () => {
  for (const shown of [rate, seconds, grouped, percent, bytes, bytesPerSecond, span, clock, moment]) {
    for (const unknown of [NaN, undefined, null, '7', Infinity]) assert.equal(shown(unknown), '-');
  }
});

test('one of something is not several', () => {
  assert.deepEqual(
    [count(1, 'worker'), count(0, 'worker'), count(1200, 'line has', 'lines have')],
    ['1 worker', '0 workers', '1,200 lines have'],
  );
});

test('times are those of whoever looks', () => {
  const at = new Date(2030, 0, 31, 4, 3, 9).getTime();
  assert.deepEqual([clock(at), moment(at)], ['04:03:09', '2030-01-31 04:03:09']);
});
