#!/bin/bash
# Subject: uvicorn 0.54.0 (PyPI) with asyncio's event loop: alone, with --workers 2, and with --fd; the same with uvloop 0.23.0,
#   and hypercorn 0.18.0 with two workers.
# Expected: how many processes serve, and who has bound the socket, changes nothing about a connection: asyncio switches Nagle's
#   algorithm off (TCP_NODELAY) for every TCP connection.
# Seen: with --workers or --fd it stays on. Each answer on a kept connection takes 40 ms and more: head and body are two writes, and
#   the second waits until the client acknowledges the first, which it delays. asyncio asks the listening Python object for its
#   protocol, which is 0 where the socket was made without naming one (--workers), and for its family, which uvicorn says is
#   AF_UNIX (--fd). uvloop asks for the family alone: it is slow with --fd, and fast with --workers.
# How: an application tells TCP_NODELAY of its own connections; a client asks eight times over one.
# Why: a kept connection answers 25 requests a second instead of a thousand, as soon as a server that was tried alone gets
#   workers or a socket from its supervisor. Whoever hands sockets to servers will be asked why.
set -euo pipefail
folder=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip -q --disable-pip-version-check install uvicorn==0.54.0 uvloop==0.23.0 hypercorn==0.18.0
venv/bin/python --version

cat >app.py <<'PYTHON'
import os, socket


def options():
    """TCP_NODELAY of each connection that this process has."""
    seen = []
    for number in os.listdir("/proc/self/fd"):
        try:
            one = socket.socket(fileno=os.dup(int(number)))
            with one:
                one.getpeername()
                if one.family == socket.AF_INET:
                    seen.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        except OSError:
            continue
    return seen


async def app(scope, receive, send):
    if scope["type"] == "http":
        body = ",".join(map(str, options())).encode()
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})
PYTHON

cat >ask.py <<'PYTHON'
import http.client, statistics, sys, time

client, took = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5), []
for _ in range(8):
    begin = time.monotonic()
    client.request("GET", "/")
    answer = client.getresponse().read().decode()
    took.append(time.monotonic() - begin)
pace = "slow" if statistics.median(took[1:]) > 0.03 else "fast"
print(f"TCP_NODELAY {answer}, {pace}")
PYTHON

cat >give.py <<'PYTHON'
import os, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.execvp(sys.argv[2], sys.argv[2:])
PYTHON

check() {
    local expected=$1 port seen=
    shift
    port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    local words=("${@//PORT/$port}")
    "${words[@]}" >log 2>&1 &
    server=$!
    for _ in $(seq 100); do
        if seen=$(python3 ask.py "$port" 2>/dev/null); then break; fi
        sleep 0.1
    done
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
    echo "$*: $seen"
    if [ "$seen" != "$expected" ]; then
        tail -n 3 log
        echo "changed: it was $expected"
        exit 1
    fi
}
uvicorn="venv/bin/uvicorn --log-level warning"
check "TCP_NODELAY 1, fast" $uvicorn --loop asyncio --port PORT app:app
check "TCP_NODELAY 0, slow" $uvicorn --loop asyncio --port PORT --workers 2 app:app
check "TCP_NODELAY 0, slow" venv/bin/python give.py PORT $uvicorn --loop asyncio --fd 3 app:app
check "TCP_NODELAY 1, fast" $uvicorn --loop uvloop --port PORT --workers 2 app:app
check "TCP_NODELAY 0, slow" venv/bin/python give.py PORT $uvicorn --loop uvloop --fd 3 app:app
check "TCP_NODELAY 1, fast" venv/bin/hypercorn --bind 127.0.0.1:PORT --workers 2 app:app
echo ok
