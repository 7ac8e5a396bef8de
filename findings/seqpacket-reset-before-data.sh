#!/bin/bash
# Subject: Linux AF_UNIX sockets, SOCK_STREAM beside SOCK_SEQPACKET; seen on Linux 6.18 (x86_64).
# Expected: a peer that closes with something unread gives ECONNRESET, but whatever it had sent before is read first.
# Seen: so it is on SOCK_STREAM. On SOCK_SEQPACKET the error comes first, once, and the data after it, then end of file.
# How: a socket pair; one side sends "last words" and closes while a packet for it is still unread; the other side polls
#   and reads until it meets end of file.
# Why: a primary that speaks to its workers by SEQPACKET and takes ECONNRESET for the end loses the last packet of a worker
#   that dies or leaves with an unread message, so the very packet that would tell why. Read on until 0.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
echo "kernel $(uname -r), python $(python3 -c 'import platform; print(platform.python_version())')"
cat > "$dir/probe.py" <<'PY'
import select
import socket


def ending(kind):
    primary, worker = socket.socketpair(socket.AF_UNIX, kind)
    primary.settimeout(5)
    worker.sendall(b"last words")
    primary.sendall(b"never read")
    worker.close()
    poll = select.poll()
    poll.register(primary, select.POLLIN | select.POLLRDHUP)
    events = poll.poll(5000)[0][1]
    seen = []
    while True:
        try:
            data = primary.recv(100)
        except ConnectionResetError:
            seen.append("ECONNRESET")
            continue
        seen.append(data.decode() or "end")
        if not data:
            break
    return ["POLLERR" if events & select.POLLERR else "no POLLERR"] + seen


expected = {
    "SOCK_STREAM": ["POLLERR", "last words", "ECONNRESET", "end"],
    "SOCK_SEQPACKET": ["POLLERR", "ECONNRESET", "last words", "end"],
}
for name, order in expected.items():
    seen = ending(getattr(socket, name))
    print(f"{name:15} {', '.join(seen)}")
    if seen != order:
        raise SystemExit(f"changed: {name} was {', '.join(order)}")
PY
python3 "$dir/probe.py"
echo ok
