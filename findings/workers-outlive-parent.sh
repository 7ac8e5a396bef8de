#!/bin/bash
# Subject: pre-forking servers whose parent is killed: gunicorn 27.0.1, uvicorn 0.54.0, hypercorn 0.18.0, granian 2.8.9 (PyPI),
#   two workers each.
# Expected: workers notice that their parent is gone and leave within seconds; at worst the next start fails, as the port is taken.
# Seen: gunicorn's do. The workers of the other three serve on for as long as one looks (10 s here). A second start then fails for
#   uvicorn (status 3); hypercorn and granian start, as they set SO_REUSEPORT, and old and new code answer side by side on one port.
# How: SIGKILL to the parent; 10 s later the port is asked and the same command started again; requests tell who answers.
# Why: killing the process that one started is not stopping the server. A manager has to end the whole group, or all that descend
#   from it, at a timeout; else the old version stays alive unseen beside the new one.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" -q --disable-pip-version-check install gunicorn==27.0.1 uvicorn==0.54.0 hypercorn==0.18.0 granian==2.8.9
cd "$dir"
cat > app.py <<'PY'
import os
GROUP = str(os.getpgid(0)).encode()
async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(GROUP))]})
        await send({"type": "http.response.body", "body": GROUP})
def wsgi(environ, start):
    start("200 OK", []); return [GROUP]
PY
cat > probe.py <<'PY'
import contextlib, os, signal, socket, subprocess, time, urllib.request
def ask(port):
    with contextlib.suppress(OSError):
        return int(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read())
def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return done
def trial(command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
    words, servers = ["venv/bin/" + command[0], *command[1:], *("-b", f"127.0.0.1:{port}", "-w", "2")], []
    if command[0] in ("uvicorn", "granian"):
        words[-4:] = ["--port", str(port), "--workers", "2"]
    start = lambda: servers.append(subprocess.Popen(words, stdout=-3, stderr=-3, start_new_session=True))
    try:
        start(); assert wait_for(lambda: ask(port)), "no answer within 60 s"
        time.sleep(3) # the second worker, too
        servers[0].kill(); servers[0].wait()
        if wait_for(lambda: ask(port) is None, 10):
            return "gone"
        start(); both = lambda: servers[1].poll() is not None or {ask(port) for _ in range(60)} == {server.pid for server in servers}
        assert wait_for(both), "neither ended nor answered within 60 s"
        return "old and new answer" if (end := servers[1].poll()) is None else f"old answers, the second start ends with {end}"
    finally:
        for server in servers:
            with contextlib.suppress(OSError): os.killpg(server.pid, signal.SIGKILL)
for expected, *command in (("gone", "gunicorn", "app:wsgi", "--no-control-socket"),
        ("old answers, the second start ends with 3", "uvicorn", "app:asgi"), ("old and new answer", "hypercorn", "app:asgi"),
        ("old and new answer", "granian", "--interface", "asgi", "app:asgi")):
    print(f"{command[0]}: {(seen := trial(command))}", flush=True)
    assert seen == expected, f"changed: it was {expected}"
PY
python3 probe.py && echo ok
