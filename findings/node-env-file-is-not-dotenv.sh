#!/bin/bash
# Subject: `node --env-file` beside npm's dotenv, on the same file; seen with Node 20.20.2 and dotenv 18.0.10.
# Expected: `--env-file` is dotenv built in: a file that works with one works with the other.
# Seen: under Node an apostrophe that is escaped ends the value, and the rest of the line is gone; a byte order mark becomes
#   part of the first name; `A: 1`, and `export` before a tab, are no assignments; the last variable of a file, if nothing closes its quote, is
#   gone, where dotenv keeps it with the quote; what follows a closing quote is dropped, where dotenv keeps all of the line.
# How: one file of each kind, read by both.
# Why: neither says a word, and the app starts with another value, or with none.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-fund --no-audit node@20.20.2 dotenv@18.0.10 >/dev/null 2>&1
node=$dir/node_modules/.bin/node
[ -x "$node" ] || node=node
echo "node $("$node" --version)"
cat > seen.js <<'JS'
const fs = require('node:fs');
const { execFileSync } = require('node:child_process');
const rows = [
  ["A='it\\'s here'", "it\\'s here", 'it\\'],
  ['\ufeffA=1', '1', undefined],
  ['A: 1', '1', undefined],
  ['export\tA=1', '1', undefined],
  ['A="open', '"open', undefined],
  ['A="one" two', '"one" two', 'one'],
];
for (const [text, dotenv, node] of rows) {
  fs.writeFileSync('.env', text);
  const read = execFileSync(process.execPath, ['--env-file=.env', '-p', 'JSON.stringify({ A: process.env.A })']);
  const seen = [require('dotenv').parse(text).A, JSON.parse(read).A];
  console.log(`${JSON.stringify(text)}: dotenv ${JSON.stringify(seen[0])}, node ${JSON.stringify(seen[1])}`);
  if (seen[0] !== dotenv || seen[1] !== node) {
    console.log(`changed: ${JSON.stringify(text)}`);
    process.exit(1);
  }
}
JS
"$node" seen.js
echo ok
