#!/bin/bash
# Subject: hypercorn 0.18.0 (PyPI), its own process management (--workers 1, the default, and 2).
# Expected: a worker that is killed is replaced, and if the server gives up it says so by its exit status.
# Seen: hypercorn ends when one worker is killed, with two workers the healthy one with it, and with status 0. With one worker an
#   application that cannot be imported is status 0 as well; with two it is 0 or 1, by whether the second had failed in time.
# How: SIGKILL to one worker, the status of the parent, a connection afterwards; then a module that raises, and one that is missing.
# Why: "restart on failure" never restarts it, a rollout takes a version that cannot even start for a clean end, and a crash of
#   one worker is an outage. Whoever runs it has to restart on every exit, or give it one worker and multiply it from outside.
set -euo pipefail
dir=$(mktemp -d); parent=
# shellcheck disable=SC2317
cleanup() { if [ -n "$parent" ]; then pkill -KILL -P "$parent" || true; kill -KILL "$parent" || true; fi 2>/dev/null; rm -rf "$dir"; }
trap cleanup EXIT
die() { echo "changed: $*" >&2; exit 1; }
wait_for() { local end=$((SECONDS + 30)); until eval "$1"; do [ $SECONDS -lt $end ] || die "not within 30 s: $1"; sleep 0.1; done; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
answers() { python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$1/', timeout=5)" 2>/dev/null; }
workers() { pgrep -P "$parent" -f multiprocessing-fork; }

python3 -m venv "$dir/venv" && "$dir/venv/bin/pip" -q --disable-pip-version-check install hypercorn==0.18.0
cd "$dir"
cat > app.py <<'PY'
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
PY
echo 'raise RuntimeError("cannot start")' > broken.py

for count in 1 2; do
    port=$(free_port)
    venv/bin/hypercorn app:app -b "127.0.0.1:$port" -w $count > log 2>&1 &
    parent=$!
    wait_for "answers $port && [ \$(workers | wc -l) = $count ]"
    kill -KILL "$(workers | head -1)"
    wait_for "! kill -0 $parent 2>/dev/null"
    status=0; wait "$parent" || status=$?; parent=
    served=no; if answers "$port"; then served=yes; fi
    echo "$count worker(s), one killed: parent ended with $status, still serves: $served"
    [ "$status $served" = "0 no" ] || die "it ended with 0 and served no more"
done
for module in broken missing; do
    status=0; timeout 60 venv/bin/hypercorn $module:app -b 127.0.0.1:0 > log 2>&1 || status=$?
    echo "1 worker, $module module: $(tail -1 log) Parent ended with $status"
    [ $status = 0 ] || die "it ended with 0"
done
echo ok
