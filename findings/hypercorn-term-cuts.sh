#!/bin/bash
# Subject: hypercorn 0.18.0 (PyPI), SIGTERM to the parent with --workers 1 and with --workers 2.
# Expected: the same graceful end: a request under way is finished within the grace time (3 s unless configured), then exit 0.
# Seen: with one worker, yes. With two, a worker that has nothing to do ends at once, and that makes the parent terminate the
#   other in the middle of its request: the client gets an empty reply after a fraction of a second. The exit status is 0 both times.
#   SIGHUP, a reload, waits for every worker, and the same request is finished.
# How: one request that takes 2 s, the signal 0.5 s later; what the client got and when the parent had ended.
# Why: "it drains, I tried it" holds for the number of workers it was tried with. One worker each under an outer manager drains.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv" && "$dir/venv/bin/pip" -q --disable-pip-version-check install hypercorn==0.18.0
cd "$dir"
cat > app.py <<'PY'
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(2 if scope["path"] == "/slow" else 0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
PY
cat > probe.py <<'PY'
import concurrent.futures, http.client, os, signal, socket, subprocess, time

def get(port, path):
    try:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        link.request("GET", path)
        return link.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__

def trial(workers, name):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
    log = open("log", "w+")
    server = subprocess.Popen(["venv/bin/hypercorn", "app:app", "-b", f"127.0.0.1:{port}", "-w", str(workers)],
                              stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while open("log").read().count("Running on") < workers or get(port, "/") != "hello":
            assert time.monotonic() < deadline, "not up within 30 s: " + open("log").read()
            time.sleep(0.1)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            slow = pool.submit(get, port, "/slow")
            time.sleep(0.5)
            server.send_signal(name)
            end = server.wait(20) if name == signal.SIGTERM else "still there"
            return slow.result(), end
    finally:
        os.killpg(server.pid, signal.SIGKILL)

for workers, name, expected in ((1, signal.SIGTERM, ("hello", 0)), (2, signal.SIGTERM, ("RemoteDisconnected", 0)),
                                (2, signal.SIGHUP, ("hello", "still there"))):
    seen = trial(workers, name)
    print(f"{workers} worker(s), {name.name}: the client got {seen[0]}, parent's end: {seen[1]}")
    if seen != expected:
        raise SystemExit(f"changed: it was {expected}")
PY
python3 probe.py
echo ok
