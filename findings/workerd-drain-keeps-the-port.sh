#!/bin/bash
# Subject: workerd 1.20261117.1 (npm package @cloudflare/workerd-linux-64), `workerd serve`, TERM while a request is under way.
# Expected: it finishes the request, and from TERM on the port refuses, so that clients and balancers go elsewhere and the next
#   version can start on it.
# Seen: it finishes the request with `Connection: close`, closes idle connections at once, and ends with 0. But its listener stays
#   open until then, and nobody accepts: a client that comes meanwhile connects, waits for as long as the request lasts, and is
#   reset. A second workerd cannot start on the port before that, and ends with 1.
# How: a request of 4 s, TERM, then a second start and a client; what each sees, and when.
# Why: a check by connect alone says that a draining server is well. Who restarts it has to keep new clients away before TERM, and
#   cannot start the next one beside it, unless somebody else holds the port.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --prefix "$dir" @cloudflare/workerd-linux-64@1.20261117.1 > /dev/null
workerd=$dir/node_modules/@cloudflare/workerd-linux-64/bin/workerd; "$workerd" --version
cat > config.capnp <<'CAPNP'
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (services = [(name = "main", worker = .main)], sockets = [(name = "http", http = (), service = "main")]);
const main :Workerd.Worker = (compatibilityDate = "2024-01-01", modules = [(name = "main", esModule =
  "export default { async fetch(request) { if (new URL(request.url).pathname === '/slow') await scheduler.wait(4000); return new Response('hello'); } }")]);
CAPNP
cat > probe.py <<'PY'
import socket, subprocess, sys, time
def connect(port):
    return socket.create_connection(("127.0.0.1", port), 20)
def wait_for_port(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            return connect(port).close()
        except OSError:
            assert time.monotonic() < deadline, "it does not listen within 30 s"
            time.sleep(0.1)
def ask(client, path="/", lines=""):
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
def read(client):
    try:
        return client.recv(4096).decode()
    except ConnectionResetError:
        return "reset"
def check(what, seen, expected):
    print(f"{what}: {seen}", flush=True)
    assert seen == expected, f"changed: it was {expected}"
with socket.socket() as free:
    free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
command = [sys.argv[1], "serve", "config.capnp", "--socket-addr", f"http=127.0.0.1:{port}"]
server = subprocess.Popen(command)
try:
    wait_for_port(port)
    idle, busy = connect(port), connect(port)
    ask(idle); assert "hello" in read(idle)
    ask(busy, "/slow"); time.sleep(0.5)
    server.terminate(); time.sleep(0.5)
    check("TERM: an idle connection reads", read(idle), "")
    second = subprocess.run(command, capture_output=True, text=True, timeout=20)
    print("  |", second.stderr.strip().splitlines()[0][:100])
    check("a second start ends with", second.returncode, 1)
    try:
        late = connect(port); seen = "connected"
    except ConnectionRefusedError:
        seen = "refused"
    check("a new client is", seen, "connected")
    begun = time.monotonic(); ask(late)
    check("and asks, and gets", read(late), "reset")
    waited = time.monotonic() - begun
    check("after it has waited for seconds", 1 < waited < 4, True)
    answer = read(busy)
    check("the request under way gets", (answer.split("\r\n")[0], "Connection: close" in answer), ("HTTP/1.1 200 OK", True))
    check("the server ends with", server.wait(10), 0)
finally:
    server.kill()
PY
python3 probe.py "$workerd" && echo ok
