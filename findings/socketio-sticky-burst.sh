#!/bin/bash
# Subject: @socket.io/sticky, the least-connection balancing that is its default; seen with 1.0.4, socket.io 4.8.4, Node 20.20.2.
# Expected: each new client goes to the worker with the fewest clients, so 40 clients come to ten on each of four workers,
#   whether they arrive one after the other or together.
# Seen: one after the other, nine to eleven each. Together, all 40 are one worker's on a quiet machine; on a busy one
#   the busiest has 14 to 39 and the idlest one to three. With its round-robin they are ten each both times.
# How: four workers, and 40 connections that are open before each sends its first request, the handshake of Engine.IO: all in
#   one turn of the loop, or each when the one before it is answered.
# Why: a client counts once its worker has told the primary of it, so all that arrive before that see the same counts, and of
#   equal ones the first worker is chosen. A reload or a lost network brings all clients at once.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-fund --no-audit node@20.20.2 @socket.io/sticky@1.0.4 socket.io@4.8.4 >/dev/null 2>&1
node=$dir/node_modules/.bin/node
[ -x "$node" ] || node=node
echo "node $("$node" --version)"
cat > cluster.js <<'JS'
const cluster = require('node:cluster');
const http = require('node:http');
const net = require('node:net');
const { setupMaster, setupWorker } = require('@socket.io/sticky');

const method = process.argv[2];

const connected = (port) => new Promise((resolve) => {
  const socket = net.connect(port, '127.0.0.1', () => resolve(socket));
});

// Which worker answers the handshake.
const ask = (socket) => new Promise((resolve, reject) => {
  let answer = '';
  socket.on('error', reject).on('data', (data) => {
    answer += data;
    const worker = /^x-worker: (.*)$/im.exec(answer);
    if (worker) resolve(worker[1]);
  });
  socket.write('GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n\r\n');
});

function report(how, workers) {
  const counts = {};
  workers.forEach((worker) => { counts[worker] = (counts[worker] || 0) + 1; });
  console.log(`${method}, ${how}: ${Object.values(counts).sort((a, b) => b - a).join(' ')}`);
}

async function run(port) {
  const open = () => Promise.all(Array.from({ length: 40 }, () => connected(port)));
  const oneByOne = [];
  for (const socket of await open()) oneByOne.push(await ask(socket));
  report('one by one', oneByOne);
  report('together', await Promise.all((await open()).map(ask)));
  process.exit();
}

if (cluster.isPrimary) {
  const server = http.createServer();
  setupMaster(server, { loadBalancingMethod: method });
  let ready = 0;
  cluster.on('message', (worker, message) => {
    if (message === 'ready' && ++ready === 4) server.listen(0, '127.0.0.1', () => run(server.address().port));
  });
  for (let worker = 0; worker < 4; worker++) cluster.fork();
} else {
  const io = new (require('socket.io').Server)(http.createServer());
  setupWorker(io);
  io.engine.on('initial_headers', (headers) => { headers['x-worker'] = cluster.worker.id; });
  process.send('ready');
}
JS
seen=$(for method in least-connection round-robin; do timeout 60 "$node" cluster.js "$method"; done)
printf '%s\n' "$seen"
apart() { sed -n "s/^$1: //p" <<< "$seen" | awk '{ print $1 - (NF < 4 ? 0 : $NF) }'; }
[ "$(apart 'least-connection, together')" -ge 8 ] || { echo "changed: clients that come together are spread"; exit 1; }
[ "$(apart 'least-connection, one by one')" -le 3 ] || { echo "changed: clients that come one by one are not"; exit 1; }
[ "$(apart 'round-robin, together')" = 0 ] || { echo "changed: round-robin"; exit 1; }
echo ok
