#!/bin/bash
# Subject: croner 4.1.97, which PM2 7.0.4 has for `cron_restart` (its package.json names that version).
# Expected: cron(8): of `0 0 1 * 1` either day is enough: the 1st and every Monday. `?` is the same as `*`.
# Seen: both days have to match: the first of a month that is a Monday, twice a year. `?` is the day on which the expression was read.
# How: the next times after 2026-11-28 UTC, as the library tells them, read today.
# Why: a line that was copied from a crontab restarts an app under PM2 on hardly any of the days that it names.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund croner@4.1.97 >/dev/null
cat > times.js <<'END'
const Cron = require('croner');
const times = (expression) => {
  const cron = new Cron(expression);
  let time = new Date('2026-11-28T00:00:00Z');
  return [1, 2, 3].map(() => (time = cron.next(time)).toISOString().slice(0, 10)).join(' ');
};
console.log('0 0 1 * 1 ', times('0 0 1 * 1'));
const days = times('0 0 ? * *').split(' ').map((day) => Number(day.slice(8)));
console.log('0 0 ? * * ', days.every((day) => day === new Date().getUTCDate()) ? 'the day on which it was read' : days);
END
TZ=UTC node times.js | tee seen
diff -b seen - <<'END' || { echo "changed: the lines above"; exit 1; }
0 0 1 * 1  2027-02-01 2027-03-01 2027-11-01
0 0 ? * *  the day on which it was read
END
echo ok
