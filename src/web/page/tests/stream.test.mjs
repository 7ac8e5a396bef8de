// Messages are the same, wherever the network cuts them.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { JsonLines, ServerEvents } from '../stream.js';

const STREAM =
  ':\n\ndata: {"a":1}\n\n: alive\r\n\r\ndata:{"b":\r\ndata: 2}\r\n\r\nevent: x\nid: 7\n\ndata: cut';

test('server-sent events are cut anywhere', () => {
  for (let size = 1; size <= STREAM.length; size += 1) {
    const cutter = new ServerEvents();
    const messages = [];
    for (let at = 0; at < STREAM.length; at += size)
      messages.push(...cutter.push(STREAM.slice(at, at + size)));
    assert.deepEqual([...messages, ...cutter.end()], ['{"a":1}', '{"b":\n2}'], `pieces of ${size}`);
  }
});

test('the last of the JSON lines may have no end', () => {
  const cutter = new JsonLines();
  assert.deepEqual(
    [cutter.push('{"a":1}\n{"b'), cutter.push('":2}\n\n{"c":3}'), cutter.end(), cutter.end()],
    [['{"a":1}'], ['{"b":2}'], ['{"c":3}'], []],
  );
});

test('a line without an end is refused', () => {
  const cutter = new JsonLines();
  const piece = 'x'.repeat(1024 * 1024);
  assert.throws(() => {
    for (let at = 0; at < 40; at += 1) cutter.push(piece);
  }, /without an end/);
});
