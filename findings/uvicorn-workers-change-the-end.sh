#!/bin/bash
# Subject: uvicorn 0.54.0 (PyPI), the same application without --workers and with --workers 2.
# Expected: --workers changes how many serve, and nothing else: TERM finishes the request under way, refuses new connections at
#   once, and ends with 0; an application that cannot be imported ends with a failure.
# Seen: without workers TERM does finish the request, then the process dies of SIGTERM on purpose (INT: status 0), and new
#   connections are refused meanwhile. With two workers the status is 0, but the parent keeps the port open while it waits: a new
#   connection is accepted by the kernel, lies there, and is reset at the end. An application that cannot be imported is status
#   1 without workers; with them the parent starts new ones for ever (it is stopped here after 8 s) and never fails.
# How: a request of 4 s, the signal 0.5 s later, a new request as soon as every worker has logged that it is shutting down.
# Why: an end by signal after TERM is a clean one here and has to count as such. And a manager that waits for an exit to notice a
#   bad version waits for ever where a second manager below it retries: readiness needs a deadline of its own.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"; python3 -m venv venv && "$dir/venv/bin/pip" -q --disable-pip-version-check install uvicorn==0.54.0
cat > app.py <<'PY'
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(4 if scope["path"] == "/slow" else 0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
PY
echo 'open("tries", "a").write("x"); raise RuntimeError' > broken.py
cat > probe.py <<'PY'
import concurrent.futures, contextlib, http.client, os, signal, socket, subprocess, time
def get(port, path="/"):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try: link.request("GET", path); return link.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as error: return type(error).__name__
@contextlib.contextmanager
def server(module, *options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
    words = ["venv/bin/uvicorn", f"{module}:app", "--port", str(port), *options]
    process = subprocess.Popen(words, stdout=-3, stderr=open("log", "w"), start_new_session=True)
    try: yield process, port
    finally:
        with contextlib.suppress(OSError): os.killpg(process.pid, signal.SIGKILL)
def check(what, seen, *expected):
    print(f"{what}: {seen}", flush=True)
    assert seen == expected, f"changed: it was {expected}"
def stop(name, *options):
    with server("app", *options) as (process, port), concurrent.futures.ThreadPoolExecutor() as pool:
        deadline = time.monotonic() + 60
        while get(port) != "hello": assert time.monotonic() < deadline, "no answer within 60 s"
        time.sleep(3) # the second worker, too
        slow = pool.submit(get, port, "/slow"); time.sleep(0.5)
        process.send_signal(name)
        while open("log").read().count("Shutting down") < 1 + len(options): assert time.monotonic() < deadline
        time.sleep(0.3)
        return get(port), slow.result(), process.wait(20)
check("1, TERM: a new client, the slow one, status", stop(signal.SIGTERM), "ConnectionRefusedError", "hello", -15)
check("1, INT: the same", stop(signal.SIGINT), "ConnectionRefusedError", "hello", 0)
check("2, TERM: the same", stop(signal.SIGTERM, "--workers=2"), "ConnectionResetError", "hello", 0)
with server("broken") as (process, _):
    check("1, broken: status, tries", (process.wait(30), os.path.getsize("tries")), 1, 1)
with server("broken", "--workers=2") as (process, _):
    time.sleep(8); check("2, broken, after 8 s: status, more than 4 tries", (process.poll(), os.path.getsize("tries") > 4), None, True)
PY
python3 probe.py && echo ok
