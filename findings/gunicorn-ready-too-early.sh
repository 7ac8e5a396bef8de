#!/bin/bash
# Subject: gunicorn 27.0.1 (PyPI) with NOTIFY_SOCKET set, as under systemd's Type=notify.
# Expected: READY=1 once a worker has loaded the application; RELOADING=1 with MONOTONIC_USEC at HUP and STOPPING=1 at TERM, as
#   Type=notify-reload wants it; MAINPID from the new master of an upgrade (USR2).
# Seen: READY=1 comes from the master before any worker has loaded anything: an application that raises on import is READY and then
#   gone with status 1 or 3 (both were seen), and one that takes 3 s is READY before it begins. HUP and TERM send nothing at all. The new master of USR2
#   sends a second READY=1, without MAINPID, from a process that the notified one never named.
# How: a datagram socket with SO_PASSCRED in the place of systemd's; who sends what, and when the application's module begins.
# Why: READY=1 is no proof that somebody serves. A rollout has to wait for a worker's first sign (its listening, its answer to a
#   probe), and has to accept a READY from another process than the one it started, or not, by its own decision.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv" && "$dir/venv/bin/pip" -q --disable-pip-version-check install gunicorn==27.0.1
cd "$dir"
echo 'raise RuntimeError("cannot start")' > broken.py
cat > slow.py <<'PY'
import time
open("loading", "a").write("x")
time.sleep(3)
app = print  # nobody calls it
PY
cat > probe.py <<'PY'
import contextlib, os, signal, socket, struct, subprocess, time

def trial(module, steps):
    """Starts gunicorn, sends each signal when its condition holds; returns what was notified, and the exit status."""
    inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    inbox.bind(""); inbox.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1); inbox.settimeout(0.1)
    log, notify = open("log", "w"), "@" + inbox.getsockname()[1:].decode()
    master = subprocess.Popen(["venv/bin/gunicorn", "-w", "2", "-b", "127.0.0.1:0", "--no-control-socket", module], stdout=log,
                              stderr=log, start_new_session=True, env={**os.environ, "NOTIFY_SOCKET": notify})
    seen, deadline, steps = [], time.monotonic() + 60, list(steps)
    try:
        while master.poll() is None:
            assert time.monotonic() < deadline, f"not done within 60 s: {seen}\n" + open("log").read()
            if steps and steps[0][0](seen):
                name = steps.pop(0)[1]
                seen.append(name.name); master.send_signal(name)
            with contextlib.suppress(TimeoutError):
                text, extra, _, _ = inbox.recvmsg(4096, 256)
                sender = "master" if struct.unpack("iii", extra[0][2])[0] == master.pid else "another"
                fields = "+".join(line.split("=")[0] for line in text.decode().split("\n"))
                seen.append(f"{fields} of {sender}, {os.path.exists('loading') and 'loading' or 'nothing loaded'}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(master.pid, signal.SIGKILL)
    return seen, master.returncode

loaded = lambda count: lambda _: os.path.exists("loading") and os.path.getsize("loading") >= count
ready = "READY+STATUS of master, nothing loaded"
for module, steps, expected in (
        ("broken:app", [], ([ready], (1, 3))),  # both were seen
        ("slow:app", [(loaded(2), signal.SIGHUP), (loaded(4), signal.SIGUSR2), (lambda seen: "another" in seen[-1], signal.SIGTERM)],
         ([ready, "SIGHUP", "SIGUSR2", "READY+STATUS of another, loading", "SIGTERM"], (0,)))):
    seen = trial(module, steps)
    print(f"{module}: {'; '.join(seen[0])}; exit {seen[1]}")
    if seen[0] != expected[0] or seen[1] not in expected[1]:
        raise SystemExit(f"changed: it was {expected}")
PY
python3 probe.py && echo ok
