// Events are told in the words of src/cli/verbs/sentence.rs; where the server leaves fields out, the sentence does, too.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { told, weight } from '../sentence.js';

test('an event is a sentence', () => {
  const table = [
    [{ event: 'worker-online', worker: 1, pid: 5 }, 'worker 1 online (pid 5)', 'good'],
    [{ event: 'worker-online', worker: 1 }, 'worker 1 online', 'good'],
    [
      { event: 'worker-ended', worker: 2, pid: 7, how: 'exited with code 1', ran_ms: 5, expected: false },
      'worker 2 exited with code 1 (pid 7)',
      'bad',
    ],
    [{ event: 'worker-ended', worker: 2, expected: true }, 'worker 2 ended', 'small'],
    [
      { event: 'worker-failed', worker: 2, pid: 7, reason: 'it did not listen' },
      'worker 2 failed (pid 7): it did not listen',
      'bad',
    ],
    [
      { event: 'worker-restarts', worker: 1000, in_ms: 1500, reason: 'it ended' },
      'worker 1,000 restarts in 1s: it ended',
      'warn',
    ],
    [{ event: 'worker-says', worker: 1, message: { a: 1 } }, 'worker 1 says {"a":1}', 'plain'],
    [{ event: 'worker-stalled', worker: 1 }, 'worker 1 took no connection in time', 'warn'],
    [{ event: 'reload-started', by: 'SIGHUP' }, 'reload started by SIGHUP', 'plain'],
    [{ event: 'reload-started' }, 'reload started', 'plain'],
    [{ event: 'reload-done', workers: 4 }, 'reload done, workers replaced: 4', 'good'],
    [{ event: 'reload-failed', reason: 'no' }, 'reload failed: no', 'bad'],
    [{ event: 'reload-failed', reason: '' }, 'reload failed; old workers keep serving', 'bad'],
    [{ event: 'worker-ended', worker: 2, pid: 0, how: '', ran_ms: 5, expected: false }, 'worker 2 ended', 'bad'],
    [{ event: 'reload-started', by: '' }, 'reload started', 'plain'],
    [{ event: 'scaled', workers: 5, by: 'a' }, 'scaled to 5 by a', 'plain'],
    [{ event: 'app-stopping' }, 'workers stopped; the ports stay open', 'plain'],
    [{ event: 'stopping', by: 'SIGTERM' }, 'clusterd stopping, requested by SIGTERM', 'plain'],
    [{ event: 'missed', events: 7 }, '7 events were missed', 'warn'],
    [
      { time: 't', app: 'web', event: 'of-tomorrow', x: '\u001b[2J' },
      'of-tomorrow {"x":"\\u001b[2J"}',
      'plain',
    ],
    [{ event: 'constructor', x: 1 }, 'constructor {"x":1}', 'plain'],
  ];
  for (const [event, text, worth] of table) assert.deepEqual([told(event), weight(event)], [text, worth]);
});

test('a sentence has an end, and no line of its own', () => {
  assert.equal(told({ event: 'worker-failed', worker: 1, reason: 'a\nb\u202e' }), 'worker 1 failed: a b ');
  assert.ok(told({ event: 'worker-says', worker: 1, message: 'x'.repeat(1e6) }).length < 600);
});
