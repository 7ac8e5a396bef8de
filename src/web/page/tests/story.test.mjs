// The timeline tells reloads as bands, with the canary, and how they ended.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { axis, reloadTold, Story } from '../story.js';

/** What is told of events at these times. */
const story = (...list) => {
  const heard = new Story();
  for (const [at, event, fields] of list) heard.hear(at, { event, ...fields });
  return heard;
};

const BEGIN = [
  [1000, 'reload-started', { by: 'SIGHUP' }],
  [1100, 'worker-started', { worker: 1, pid: 11 }],
];

test('a reload is a band with its canary and its steps', () => {
  const { reloads, marks } = story(
    ...BEGIN,
    [1500, 'worker-online', { worker: 1, pid: 11 }],
    [2500, 'worker-draining', { worker: 1, pid: 1 }],
    [2510, 'worker-started', { worker: 2, pid: 12 }],
    [2900, 'worker-online', { worker: 2, pid: 12 }],
    [4000, 'reload-done', { workers: 2 }],
  );
  const { news, ...reload } = reloads[0];
  assert.deepEqual([reloads.length, [...news]], [1, [1, 2]]);
  assert.deepEqual(reload, {
    from: 1000,
    to: 4000,
    outcome: 'done',
    by: 'SIGHUP',
    reason: undefined,
    workers: 2,
    steps: [
      [1500, 1],
      [2900, 2],
    ],
    canary: { worker: 1, from: 1100, to: 2500 },
  });
  assert.deepEqual(marks, [], 'its steps are no marks of their own');
  assert.match(
    reloadTold(reloads[0], 9000),
    /^Reload at [\d:]+ by SIGHUP; canary worker 1 for 1s; 2 workers replaced in 3s\.$/,
  );
});

test('a failed reload is told as rolled back', () => {
  const { reloads, marks } = story(
    ...BEGIN,
    [1800, 'worker-failed', { worker: 1, pid: 11, reason: 'it did not listen' }],
    [1900, 'reload-failed', { reason: 'worker 1 was not ready' }],
  );
  assert.deepEqual(
    [reloads[0].outcome, reloads[0].to, reloads[0].canary.to, marks.length],
    ['failed', 1900, 1900, 1],
  );
  assert.match(
    reloadTold(reloads[0], 9000),
    /canary worker 1 for 800ms; failed after 900ms and rolled back: worker 1 was not ready\.$/,
  );
});

test('one that is under way has no end', () => {
  const { reloads } = story(...BEGIN);
  assert.deepEqual([reloads[0].outcome, reloads[0].to], ['running', undefined]);
  assert.match(
    reloadTold(reloads[0], 3000),
    /canary worker 1 on trial; 0 new workers online, running for 2s\.$/,
  );
});

test('one that could not begin is a mark', () => {
  const { reloads, marks } = story([1, 'reload-failed', { reason: 'the configuration is wrong' }]);
  assert.deepEqual([reloads, marks.map(({ weight }) => weight)], [[], ['bad']]);
});

test('stalls and stops last, and the rest are marks by their weight', () => {
  const { stalls, stops, marks } = story(
    [1, 'worker-stalled', { worker: 2 }],
    [5, 'worker-moves', { worker: 2 }],
    [6, 'worker-stalled', { worker: 3 }],
    [7, 'app-stopping', { by: 'a' }],
    [9, 'app-started', { by: 'a' }],
    [10, 'worker-started', { worker: 3 }],
    [11, 'worker-online', { worker: 3 }],
    [12, 'hasOwnProperty', {}],
  );
  assert.deepEqual(stalls, [
    { worker: 2, from: 1, to: 5 },
    { worker: 3, from: 6, to: undefined },
  ]);
  assert.deepEqual(stops, [{ from: 7, to: 9 }]);
  assert.deepEqual(
    marks.map(({ at, weight }) => [at, weight]),
    [
      [1, 'warn'],
      [5, 'good'],
      [6, 'warn'],
      [7, 'plain'],
      [9, 'plain'],
      [11, 'good'],
      [12, 'plain'],
    ],
  );
});

test('a reload of very many workers is one band, and everything is bounded', () => {
  const many = Array.from({ length: 5000 }, (_, at) => [at, 'worker-online', { worker: at + 1 }]);
  const { reloads, marks } = story([0, 'reload-started', {}], ...many);
  assert.deepEqual([reloads[0].steps.length, marks.length], [5000, 0]);
  assert.equal(story(...many).marks.length, 1000);
});

test('lines of the axis are at whole times', () => {
  assert.deepEqual(axis(5000, 125_000, 6), [30_000, 60_000, 90_000, 120_000]);
  assert.equal(axis(0, 600_000, 5).length, 6);
  assert.equal(axis(1, 36_000_000, 1).length, 10, 'an hour is the longest step');
});
