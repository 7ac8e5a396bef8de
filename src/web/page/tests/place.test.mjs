// What is chosen survives a reload of the page in the fragment, which the token never is in.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { format, isKept, parse, START } from '../place.js';

test('a fragment says what differs from the start', () => {
  assert.equal(format(START), '');
  assert.deepEqual(parse(''), START);
  const place = {
    name: 'a&b=#ü',
    pid: 4711,
    filter: 'we b',
    span: '1h',
    panels: { ...START.panels, workers: false, log: true },
  };
  assert.equal(format(place), '#app=a%26b%3D%23%C3%BC&pid=4711&open=log&closed=workers&filter=we+b&span=1h');
  assert.deepEqual(parse(format(place)), place);
});

test('a fragment that makes no sense is as none', () => {
  for (const fragment of ['#pid=x&span=9y&open=nothing,__proto__', '#pid=-1', '#&&=', '#token=secret'])
    assert.deepEqual(parse(fragment), START);
  assert.ok(!format(parse('#token=secret&app=web')).includes('secret'));
  assert.equal(parse(`#filter=${'x'.repeat(5000)}`).filter.length, 100);
});

test('a filter keeps what has all of its words', () => {
  const words = ['web', 'default', 'online'];
  for (const [filter, kept] of [
    ['', true],
    ['WEB', true],
    ['web on', true],
    [' e ', true],
    ['web off', false],
  ])
    assert.equal(isKept(words, filter), kept, filter);
});
