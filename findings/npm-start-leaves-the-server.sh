#!/usr/bin/env bash
# TERM to `npm start` leaves the server running where /bin/sh is Debian 12's dash (0.5.12-2): npm passes TERM on to the shell in
# which it runs the script, and that ends without the server. dash has not replaced itself by the last command of `sh -c`, as bash
# does. So a supervisor or `docker stop` that ends npm has the port taken until the container is gone. With `exec node ...` in the
# script the server gets the signal.
#
# Seen with npm 11.19.1, Node 20.20.2, dash 0.5.12-2, after TERM to npm:
#   "start": "node server.js"        npm and its shell are gone, the server answers
#   "start": "exec node server.js"   nobody answers
set -euo pipefail

folder=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
cd "$folder"
npm install --silent --no-fund --no-audit --prefix tools npm@11.19.1 >/dev/null

cat > server.js <<'JS'
const server = require('http').createServer((request, response) => response.end('here'))
server.listen(0, '127.0.0.1', () => console.log('listens', process.pid, server.address().port))
JS

# What is left of the server after TERM to npm, when its script is this.
after_term() {
    local npm port
    echo "{\"name\":\"app\",\"version\":\"1.0.0\",\"scripts\":{\"start\":\"$1\"}}" > package.json
    tools/node_modules/.bin/npm start > output 2>&1 &
    npm=$!
    for _ in $(seq 200); do grep -q '^listens' output && break; sleep 0.1; done
    read -r server port < <(sed -n 's/^listens //p' output)
    kill -TERM "$npm"
    wait "$npm" || true
    for _ in $(seq 20); do [ -d "/proc/$server" ] || break; sleep 0.1; done
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then left=answers; else left=gone; fi
    kill "$server" 2>/dev/null || true
}

expect() {
    printf '%-28s the server: %s\n' "$1" "$2"
    [ "$2" = "$3" ] || { echo "changed: it was: $3"; exit 1; }
}

echo "npm $(tools/node_modules/.bin/npm --version), Node $(node --version), sh: $(readlink -f /bin/sh)"
after_term "node server.js"
expect "node server.js" "$left" answers
after_term "exec node server.js"
expect "exec node server.js" "$left" gone
echo ok
