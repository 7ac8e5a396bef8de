// A lane has every connection once, where it was given, and forgets what is too old.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { columns, height, Lane, LANE_MS, SLOT_MS } from '../lane.js';
import { Ring } from '../ring.js';

const total = (lane, from, to) => columns(lane, from, to, 1).reduce((sum, [, count]) => sum + count, 0);

test('connections are spread over their tick, and none is lost', () => {
  const lane = new Lane();
  lane.add(1000, 1200, 5);
  assert.deepEqual([lane.at(10), lane.at(11), lane.at(12), lane.at(13)], [0, 2, 3, 0]);
  lane.add(1200, 1250, 2);
  assert.deepEqual([lane.at(12), lane.newest], [5, 12], 'the same slot');
  lane.add(1250, 2000, 1);
  assert.equal(total(lane, 0, 20), 8);
});

test('columns keep together while they move', () => {
  const lane = new Lane();
  lane.add(1000, 1900, 9);
  assert.deepEqual(columns(lane, 11, 19, 4), [
    [8, 1],
    [12, 4],
    [16, 4],
  ]);
  assert.deepEqual(columns(lane, 12, 19, 4), [
    [12, 4],
    [16, 4],
  ]);
  assert.deepEqual(columns(lane, 0, 9, 4), []);
});

test('what is too old is forgotten', () => {
  const lane = new Lane();
  lane.add(0, 100, 3);
  assert.equal(lane.at(1), 3);
  lane.add(10 * LANE_MS, 10 * LANE_MS + SLOT_MS, 1);
  assert.equal(lane.at(1), 0);
  assert.equal(total(lane, 0, lane.newest), 1);
  lane.add(0, 20 * LANE_MS, 50);
  assert.ok(total(lane, 0, lane.newest) <= 51, 'a long pause does not come twice');
});

test('one connection is a dot, and many fill the height', () => {
  assert.deepEqual(
    [height(1), height(8), height(64), height(1e6)].map((part) => Number(part.toFixed(2))),
    [0.2, 0.6, 1, 1],
  );
});

test('a ring keeps the last ones in their order', () => {
  const ring = new Ring(3);
  assert.deepEqual([[...ring], ring.at(0), ring.at(-1)], [[], undefined, undefined]);
  for (let item = 1; item <= 5; item += 1) ring.push(item);
  assert.deepEqual(
    [[...ring], ring.length, ring.at(0), ring.at(-1), ring.at(-4), ring.at(3)],
    [[3, 4, 5], 3, 3, 5, undefined, undefined],
  );
});
