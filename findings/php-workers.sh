#!/bin/bash
# Subject: `php -S` with PHP_CLI_SERVER_WORKERS=2, PHP 8.2.36 (Debian package php8.2-cli, unpacked; its libraries are the machine's).
# Expected: two processes answer; one that dies is replaced; TERM or INT to the parent ends the server.
# Seen: three answer, as the parent serves, too. One that is killed is never replaced. TERM ends the parent alone: the others
#   serve on and hold the port, so that a second start fails. INT stops the parent from answering but not from running: it waits
#   for the others, which answer for ever. Only a signal to the whole process group ends it.
# How: requests tell the pids that answer; each signal to a fresh server of its own process group.
# Why: a manager that signals the process it started either leaves a server behind (TERM) or waits until its timeout (INT). It has
#   to signal the group, and it cannot rely on the count of workers it asked for, neither at the start nor later.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -qq -o APT::Sandbox::User=root download php8.2-cli=8.2.36-1~deb12u1 > /dev/null
dpkg -x php8.2-cli_*.deb root; php=$dir/root/usr/bin/php8.2; "$php" -v | head -1
echo '<?php echo getmypid();' > index.php
cat > probe.py <<'PY'
import contextlib, os, signal, socket, subprocess, sys, time, urllib.request
def ask(port):
    with contextlib.suppress(OSError):
        return int(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read())
def answering(port):
    return {ask(port) for _ in range(60)} - {None}
def wait_for(condition, what):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "not within 30 s: " + what
        time.sleep(0.1)
def start(port):
    return subprocess.Popen([sys.argv[1], "-n", "-S", f"127.0.0.1:{port}"], stdout=-3, stderr=-3, start_new_session=True)
@contextlib.contextmanager
def server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
    parent = start(port)
    try:
        wait_for(lambda: len(answering(port)) == 3, "three processes answer")
        yield parent, port
    finally:
        with contextlib.suppress(OSError): os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
def check(what, *seen):
    print(f"{what}: {seen[0::2]}", flush=True)
    assert seen[0::2] == seen[1::2], f"changed: it was {seen[1::2]}"
with server() as (parent, port):
    pids = answering(port)
    check("answering; the parent is among them", len(pids), 3, parent.pid in pids, True)
    os.kill(max(pids - {parent.pid}), signal.SIGKILL); time.sleep(5)
    check("5 s after one was killed: answering", len(answering(port)), 2)
with server() as (parent, port):
    parent.terminate()
    end = parent.wait(10)
    check("TERM: the parent ended with, answering, a second start ends with", end, -15, len(answering(port)), 2, start(port).wait(10), 1)
with server() as (parent, port):
    parent.send_signal(signal.SIGINT); time.sleep(5)
    pids = answering(port)
    check("5 s after INT: the parent's end, answering, the parent among them", parent.poll(), None, len(pids), 2, parent.pid in pids, False)
    os.killpg(parent.pid, signal.SIGINT)
    check("INT to the group: the parent ended with, answering", parent.wait(10), 0, len(answering(port)), 0)
PY
PHP_CLI_SERVER_WORKERS=2 python3 probe.py "$php" && echo ok
