// What messages make of what is known, and the figures that come of it.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { lengthOf } from '../figures.js';
import { generations, online, restarts, stateOf } from '../generations.js';
import { columns } from '../lane.js';
import { EVENTS, State } from '../state.js';

const histogram = (count) => ({
  count,
  sum_seconds: count * 0.05,
  buckets: [
    { seconds: 0.1, count },
    { seconds: 1, count },
  ],
});

/** An app that has accepted so many connections, half of them by each worker. */
const app = (accepted, changed = {}) => ({
  name: 'web',
  namespace: 'default',
  pid: 7,
  wanted: 2,
  stopped: false,
  ready: true,
  accept: 'primary',
  started: '2030-01-31T12:00:00.000Z',
  uptime_ms: 60_000,
  addresses: [{ address: '0.0.0.0:3000', worker_port: 3000 }],
  traffic: {
    accepted,
    rejected: 0,
    redispatched: 0,
    queued: 3,
    queue_wait: histogram(accepted),
    handoff: histogram(accepted),
    duration: histogram(0),
    rtt: histogram(0),
    received_bytes: accepted * 10,
    sent_bytes: accepted * 100,
    listen_queues: [
      { listener: 'a', connections: 2 },
      { listener: 'b', connections: 5 },
    ],
  },
  workers: [1, 2].map((worker) => worker_(worker, { connections_taken: accepted / 2 })),
  ...changed,
});

const worker_ = (worker, changed) => ({
  worker,
  state: 'online',
  pid: 70 + worker,
  uptime_ms: 5000,
  restarts: worker,
  cpu_percent: 1.5,
  memory_bytes: 1000,
  connections_taken: 0,
  connections_open: 4,
  connections_ended: 0,
  duration_sum_seconds: 0,
  ...changed,
});

const given = (record, number) =>
  columns(record.lane(number).lane, 0, 1e4, 1).reduce((sum, [, count]) => sum + count, 0);

test('figures are made of differences', () => {
  const state = new State();
  state.apply({ app: app(100) }, 1000);
  const { figures } = state.apps.get(7);
  assert.deepEqual(
    [
      figures.now.connections,
      figures.now.waitMost,
      figures.now.queued,
      figures.now.backlog,
      figures.now.open,
      figures.now.cpu,
      figures.now.memory,
    ],
    [NaN, NaN, 3, 7, 8, 3, 2000],
  );
  const later = app(300);
  Object.assign(later.workers[0], { connections_ended: 10, duration_sum_seconds: 2 });
  state.apply({ app: later }, 3000);
  assert.deepEqual([figures.now.connections, figures.now.received, figures.now.sent], [100, 1000, 10_000]);
  assert.deepEqual(
    [figures.now.waitHalf, figures.now.waitMost, figures.now.durationHalf],
    [0.05, 0.099, NaN],
  );
  assert.deepEqual(
    [figures.worker(1), figures.worker(2), figures.worker(3)],
    [{ taken: 50, duration: 0.2 }, { taken: 50, duration: NaN }, {}],
  );
  assert.equal(figures.moments.length, 2);
});

test('what comes at once after the last moment is none of its own', () => {
  const state = new State();
  for (const at of [0, 1000, 1100, 1200, 2000]) state.apply({ app: app(at) }, at);
  const { figures } = state.apps.get(7);
  assert.deepEqual(
    [...figures.moments].map(({ at, connections }) => [at, connections]),
    [
      [0, NaN],
      [1000, 1000],
      [2000, 1000],
    ],
  );
});

test('times are of the last five seconds', () => {
  const state = new State();
  for (let at = 0; at <= 20; at += 1) state.apply({ app: app(at < 10 ? at * 100 : 1000) }, at * 1000);
  const moments = [...state.apps.get(7).figures.moments];
  assert.deepEqual(
    [9, 14, 15].map((at) => moments[at].waitHalf),
    [0.05, 0.05, NaN],
    'the last came in the tenth second',
  );
});

test('charts go back no further than they have to', () => {
  const moments = { at: () => ({ at: 0 }) };
  assert.deepEqual(
    [0, 60_000, 60_001, 121_000, 1e9].map((now) => lengthOf(moments, now)),
    [60_000, 60_000, 120_000, 300_000, 300_000],
  );
  assert.equal(lengthOf({ at: () => undefined }, 5), 60_000);
});

test('what workers accept by themselves has no rate', () => {
  const state = new State();
  for (const at of [0, 1000]) state.apply({ app: app(at, { accept: 'workers' }) }, at);
  const record = state.apps.get(7);
  assert.deepEqual(
    [record.figures.now.connections, record.figures.worker(1).taken, given(record, 1)],
    [NaN, NaN, 0],
  );
});

test('an app that tells little breaks nothing', () => {
  const state = new State();
  for (const at of [0, 1000])
    state.apply(
      { app: { name: 'bare', pid: 9, wanted: 1, workers: [{ worker: 1, state: 'launching' }] } },
      at,
    );
  const { figures } = state.apps.get(9);
  assert.deepEqual(
    [figures.now.connections, figures.now.open, figures.now.cpu, figures.now.backlog, figures.now.rtt],
    [NaN, NaN, NaN, NaN, NaN],
  );
  for (const message of [
    {},
    { tomorrow: {} },
    { app: null },
    { tick: { pid: 5 } },
    { event: { pid: 9, event: null } },
    { gone: { pid: 5 } },
  ])
    state.apply(message, 2000);
  assert.equal(state.apps.size, 1);
});

test('ticks fill the lanes, and each connection is drawn once', () => {
  const state = new State();
  state.apply({ app: app(100) }, 1000);
  const record = state.apps.get(7);
  assert.equal(given(record, 1), 0, 'what was taken before is not drawn');
  const tick = (accepted, taken, at) =>
    state.apply({ tick: { pid: 7, accepted, rejected: 0, redispatched: 0, queued: 9, taken } }, at);
  tick(104, [[1, 52]], 1200);
  tick(
    110,
    [
      [1, 55],
      [2, 53],
    ],
    1400,
  );
  assert.deepEqual(
    [given(record, 1), given(record, 2), record.counts.queued, record.counts.accepted, record.taken(1)],
    [5, 3, 9, 110, 55],
  );
  state.apply({ app: app(106) }, 1500);
  assert.deepEqual([given(record, 1), record.taken(1)], [5, 55], 'a whole that is older than the last tick');
  state.apply({ app: app(112) }, 2000);
  assert.deepEqual(
    [record.figures.now.queued, record.counts.queued],
    [9, 3],
    'the longest queue since the last moment, and now',
  );
  assert.deepEqual([given(record, 1), given(record, 2)], [6, 6]);
});

test("two workers of a number are told apart, and what was given before the new one is the old one's", () => {
  const state = new State();
  const workers = (...list) => ({ workers: list });
  state.apply({ app: app(0, workers(worker_(1, { pid: 71 }))) }, 1000);
  const old = worker_(1, { pid: 71, uptime_ms: 9000 });
  state.apply(
    { app: app(0, workers(old, worker_(1, { pid: 81, state: 'launching', uptime_ms: 10 }))) },
    2000,
  );
  const record = state.apps.get(7);
  assert.deepEqual([record.lane(1).newest, record.lane(1).bornAt], [71, 1000]);
  state.apply({ app: app(0, workers(old, worker_(1, { pid: 81, uptime_ms: 500 }))) }, 2500);
  assert.deepEqual([record.lane(1).newest, record.lane(1).bornAt], [81, 2500]);
  const rows = generations(record.app.workers).map(({ key, worker, generation }) => [
    key,
    worker.pid,
    generation,
  ]);
  assert.deepEqual(rows, [
    ['1.1', 71, 'old'],
    ['1', 81, 'new'],
  ]);
});

test('one that leaves is older than one that does not', () => {
  const list = [
    worker_(2, { pid: 1 }),
    worker_(1, { pid: 2, state: 'draining', uptime_ms: 1 }),
    worker_(1, { pid: 3, uptime_ms: 9 }),
    worker_(1, { pid: 4, state: 'stopping', uptime_ms: 5 }),
  ];
  assert.deepEqual(
    generations(list).map(({ key, worker }) => [key, worker.pid]),
    [
      ['1.2', 4],
      ['1.1', 2],
      ['1', 3],
      ['2', 1],
    ],
  );
  assert.deepEqual(
    [restarts({ workers: list }), online({ workers: list })],
    [3, 2],
    'those of one number count once',
  );
  assert.equal(online({ workers: [worker_(1), worker_(1), worker_(2, { state: 'errored' })] }), 1);
});

test('the state of an app is that of its workers', () => {
  const table = [
    [{}, 'online'],
    [{ stopped: true }, 'stopped'],
    [{ reload: 'SIGHUP' }, 'reloading'],
    [{ ready: false }, 'launching'],
    [{ workers: [worker_(1, { state: 'errored' })] }, 'errored'],
    [{ ready: false, workers: [worker_(1, { state: 'waiting_restart' })] }, 'waiting restart'],
    [{ ready: false, workers: [worker_(1, { state: 'waiting_restart' }), worker_(2, { state: 'launching' })] }, 'launching'],
    [{ addresses: [], workers: [worker_(1, { uptime_ms: 10 })] }, 'launching'],
  ];
  for (const [changed, expected] of table) assert.equal(stateOf({ app: app(0, changed) }), expected);
});

test('events wait for their app, and are bounded', () => {
  const state = new State();
  const event = (number) => ({
    time: '2030-01-31T12:00:30.000Z',
    event: 'worker-says',
    worker: 1,
    message: number,
  });
  state.apply({ history: { pid: 7, events: [event(1)] } }, 0);
  state.apply({ event: { pid: 7, event: event(2) } }, 0);
  state.apply({ app: app(0) }, 1000);
  const record = state.apps.get(7);
  assert.deepEqual(
    [...record.events].map(({ event: { message } }) => message),
    [1, 2],
  );
  assert.equal(record.events.at(0).at - record.clock, -29_000, 'half of the minute that the app had run for');
  for (let number = 0; number < EVENTS + 5; number += 1)
    state.apply({ event: { pid: 7, event: event(number) } }, 1000);
  assert.deepEqual([record.events.length, record.events.at(-1).event.message], [EVENTS, EVENTS + 4]);
});

test('everything follows anew after a greeting, and charts of the same process go on', () => {
  const state = new State();
  state.apply({ home: { version: '1' } }, 0);
  state.apply({ app: app(0) }, 0);
  state.apply({ app: app(0, { pid: 8 }) }, 0);
  state.apply({ event: { pid: 7, event: { event: 'missed', events: 1 } } }, 0);
  state.apply({ home: { version: '2' } }, 5000);
  assert.equal(state.apps.size, 0);
  state.apply({ app: app(10) }, 6000);
  state.apply({ app: app(10, { pid: 8, started: '2031-01-31T12:00:00.000Z' }) }, 6000);
  const [same, other] = [state.apps.get(7), state.apps.get(8)];
  assert.deepEqual(
    [same.figures.moments.length, same.events.length, other.figures.moments.length],
    [2, 0, 1],
  );
});

test('apps are found by pid, else by name, and called by what means them alone', () => {
  const state = new State();
  for (const [pid, name] of [
    [7, 'web'],
    [9, 'web'],
    [8, 'api'],
  ])
    state.apply({ app: app(0, { pid, name }) }, 0);
  state.apply(
    {
      resting: {
        apps: [
          { name: 'old', state: 'stopped' },
          { name: 'a', state: 'errored' },
        ],
        errors: ['why'],
      },
    },
    0,
  );
  assert.deepEqual(
    state.sorted().running.map(({ pid }) => pid),
    [8, 7, 9],
  );
  assert.deepEqual([state.sorted().resting.map(({ name }) => name), state.errors], [['a', 'old'], ['why']]);
  assert.deepEqual(
    [
      state.find('web', 9).pid,
      state.find('web', 1).pid,
      state.find('api').pid,
      state.find('no'),
      state.find('web', 8).pid,
    ],
    [9, 7, 8, undefined, 7],
  );
  assert.deepEqual(
    [8, 9].map((pid) => state.wordOf(state.apps.get(pid))),
    ['api', '9'],
  );
  state.apply({ gone: { pid: 7 } }, 0);
  assert.equal(state.wordOf(state.apps.get(9)), 'web');
});

test('an app that does not answer is told so until it does', () => {
  const state = new State();
  state.apply({ home: {} }, 0);
  state.apply({ app: app(1) }, 1000);
  assert.equal(stateOf(state.find('web')), 'online');
  state.apply({ silent: { pid: 7, why: 'it is stuck' } }, 2000);
  state.apply({ silent: { pid: 8, why: 'nobody knows it' } }, 2000);
  assert.equal(stateOf(state.find('web')), 'no answer');
  assert.equal(state.sorted().running.length, 1);
  state.apply({ app: app(1) }, 3000);
  assert.equal(stateOf(state.find('web')), 'online');
});

test('what happened to an app outlives its clusterd', () => {
  const state = new State();
  state.apply({ home: {} }, 0);
  state.apply({ app: app(1) }, 1000);
  state.apply({ event: { pid: 7, event: { time: '2030-01-31T12:00:30.000Z', event: 'worker-stalled', worker: 1 } } }, 2000);
  state.apply({ gone: { pid: 7 } }, 3000);
  assert.equal(state.find('web'), undefined);
  state.apply({ history: { pid: 9, events: [{ time: '2030-01-31T12:02:00.000Z', event: 'worker-started', worker: 1 }] } }, 4000);
  state.apply({ app: app(1, { pid: 9 }) }, 4000);
  const kinds = [...state.find('web').events].map(({ event }) => event.event);
  assert.deepEqual(kinds, ['worker-stalled', 'clusterd-gone', 'worker-started']);
});
