// What strangers have written steers no display, and has an end.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bounded, command, logLine, plain } from '../text.js';

test('what steers the display is blank and what is written stays', () => {
  assert.equal(plain('a\u202e\u2066b\u2069'), 'a  b ');
  assert.equal(plain('\u001b[31m\u009b2J\u007f\tx\n'), ' [31m 2J  x ');
  assert.equal(plain('we\u200bb\u00ad\ufeff\u2028\u{e0041}'), 'we b    ');
  const words = [
    'web',
    'größer',
    'שלום',
    'مرحبا',
    'می\u200cخواهم',
    '👩\u200d👩',
    '❤\ufe0f',
    '日本\u3000語',
    '<b>&amp;',
  ];
  for (const shown of words) assert.equal(plain(shown), shown);
});

test('nothing is longer than it may be', () => {
  assert.equal(plain('x'.repeat(1_000_000)).length, 501);
  assert.equal(bounded('abc', 3), 'abc');
  assert.equal(bounded('abcd', 3), 'abc…');
  assert.equal(bounded('ab👩c', 3), 'ab…', 'no half of a character stays');
  assert.deepEqual([plain(undefined), plain(null), plain(7)], ['', '', '7']);
});

test('colours of terminals are dropped from logs, and tabs stay', () => {
  assert.equal(logLine('\u001b[1;31mError\u001b[0m:\tx'), 'Error:\tx');
  assert.equal(logLine('\u001b]8;;http://a\u0007link\u001b]8;;\u001b\\'), 'link');
  assert.equal(logLine('\u001b(B\u001bcplain\u0007'), 'plain ');
  assert.equal(logLine('y'.repeat(9000)).length, 4001);
});

test('a command is as it would be typed', () => {
  assert.equal(command(['node', '--x=1', 'my app.js']), "node --x=1 'my app.js'");
  assert.equal(command(['sh', '-c', "echo 'a'\n"]), "sh -c 'echo '\\''a'\\'' '");
  assert.deepEqual([command([]), command(undefined)], ['', '']);
});
