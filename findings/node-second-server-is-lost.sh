#!/bin/bash
# Subject: Node's child_process, sending servers to a child (`subprocess.send(message, server)`); seen with Node 20.20.2.
# Expected: a server may be closed in the parent right after send, as the documentation of send does it with the first one:
#   the child has its own copy. So it is with each server that is sent.
# Seen: the first one arrives. Of several that are sent and closed in one turn, each further one waits until the child has
#   acknowledged the one before; it is closed by then, and the child gets the message with `undefined` in its place. send
#   calls its callback without an error, and nobody emits one. Closing in the callback of send helps.
# How: two servers, sent to one child in one turn; closed at once, and again closed in the callback of send.
# Why: the port is gone, for nobody holds it any more, and neither process is told.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
(cd "$dir" && npm install --silent --no-fund --no-audit node@20.20.2 >/dev/null 2>&1)
node=$dir/node_modules/.bin/node
[ -x "$node" ] || node=node
echo "node $("$node" --version)"
cat > "$dir/parent.js" <<'JS'
const { fork } = require('node:child_process');
const net = require('node:net');

const inCallback = process.argv[2] === 'in-callback';
const child = fork(__dirname + '/child.js');
const told = [];
const opened = (name) => new Promise((resolve) => {
  const server = net.createServer();
  server.listen(0, '127.0.0.1', () => resolve({ name, server }));
});

Promise.all([opened('first'), opened('second')]).then((servers) => {
  for (const { name, server } of servers) {
    child.send(name, server, (error) => {
      told.push(error ? 'error' : 'sent');
      if (inCallback) server.close();
    });
    if (!inCallback) server.close();
  }
});
child.on('message', (got) => {
  console.log(`${process.argv[2]}: first ${got.first}, second ${got.second}; callbacks: ${told.join(', ')}`);
  child.kill();
});
setTimeout(() => { child.kill(); process.exit(1); }, 20000).unref();
JS
cat > "$dir/child.js" <<'JS'
const got = {};
process.on('message', (name, server) => {
  got[name] = server === undefined ? 'undefined' : 'a server';
  server?.close();
  if (got.first && got.second) process.send(got);
});
JS
seen=$(for when in at-once in-callback; do "$node" "$dir/parent.js" "$when"; done)
printf '%s\n' "$seen"
expected='at-once: first a server, second undefined; callbacks: sent, sent
in-callback: first a server, second a server; callbacks: sent, sent'
[ "$seen" = "$expected" ] || { echo "changed: another outcome"; exit 1; }
echo ok
