#!/bin/bash
# Subject: prom-client 15.1.3 (npm), AggregatorRegistry: one page of metrics for all workers of Node's cluster; Node as installed.
# Expected: quantiles of a summary are averaged, or left out as they cannot be merged; a gauge that is NaN stays so; buckets that
#   only one worker has are put in order; a worker that does not answer is missing from the page.
# Seen: quantiles are added up: medians of 100 and 200 give 300. NaN and +Inf arrive as 0, as JSON carries them as null. A
#   foreign bucket stands after +Inf and counts its own worker only, so a histogram is not cumulative. One stopped worker costs the
#   whole page: after 5 s there is an error and no metric of anybody.
# How: two workers with fixed values; then SIGSTOP to one.
# Why: whoever merges pages of workers has to choose for each type, and to bound the wait for each worker, not for the page. A
#   dashboard's median over N workers that shows N times the truth points here.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --prefix "$dir" --silent --no-audit --no-fund --cache "$dir/cache" prom-client@15.1.3 > npm.log 2>&1 || { cat npm.log; exit 1; }
echo "node $(node --version), prom-client $(node -p 'require("prom-client/package.json").version')"
cat > probe.js <<'JS'
const cluster = require('node:cluster');
const prom = require('prom-client');
const registry = new prom.AggregatorRegistry();

function work(id) {
  const summary = new prom.Summary({ name: 'latency', help: '-', percentiles: [0.5] });
  for (let i = 0; i < 9; i++) summary.observe(100 * id);
  new prom.Gauge({ name: 'broken', help: '-', aggregator: 'max' }).set(NaN);
  new prom.Gauge({ name: 'limit', help: '-', aggregator: 'max' }).set(Infinity);
  new prom.Histogram({ name: 'size', help: '-', buckets: id === 1 ? [1, 2] : [1, 5] }).observe(1.5);
  process.send('ready');
}
function check(what, seen, expected) {
  console.log(`${what}: ${seen}`);
  if (seen !== expected) throw new Error(`changed: it was ${expected}`);
}
async function ask(workers) {
  const page = (await registry.clusterMetrics()).split('\n');
  const lines = (start) => page.filter((line) => line.startsWith(start)).join(' | ');
  check('medians 100 and 200', lines('latency{'), 'latency{quantile="0.5"} 300');
  check('NaN in both', lines('broken '), 'broken 0');
  check('+Inf in both', lines('limit '), 'limit 0');
  check('buckets 1 2 and 1 5', lines('size_bucket').replaceAll('size_bucket', '').replace(/"[25]"/g, '"2 or 5"'),
    '{le="1"} 0 | {le="2 or 5"} 1 | {le="+Inf"} 2 | {le="2 or 5"} 1');
  workers[0].process.kill('SIGSTOP');
  const begin = Date.now();
  const error = await registry.clusterMetrics().then(() => 'a page', (failure) => failure.message);
  check('one worker stopped', `${error} after ${Math.round((Date.now() - begin) / 1000)} s`, 'Operation timed out. after 5 s');
}
if (cluster.isWorker) {
  work(cluster.worker.id);
} else {
  const workers = [cluster.fork(), cluster.fork()];
  const end = (code) => { workers.forEach((worker) => worker.process.kill('SIGKILL')); process.exit(code); };
  setTimeout(() => { console.error('not done within 60 s'); end(1); }, 60_000);
  let ready = 0;
  cluster.on('message', (worker, message) => {
    if (message === 'ready' && ++ready === 2) ask(workers).then(() => end(0), (error) => { console.error(error.message); end(1); });
  });
}
JS
node probe.js
echo ok
