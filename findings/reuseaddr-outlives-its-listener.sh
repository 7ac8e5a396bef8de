#!/bin/bash
# Subject: Linux TCP listeners, SO_REUSEADDR and shutdown(2); seen on Linux 6.18 (x86_64).
# Expected: SO_REUSEADDR concerns bind(2) of its own socket (socket(7)), so switching it off on a socket that listens
#   already changes nothing; and a port belongs to a socket until that is closed.
# Seen: each connection inherits what the listener has at that moment and takes it along into TIME_WAIT. If it was off, the
#   next server that sets SO_REUSEADDR against just this gets EADDRINUSE for a minute. And a listener that asked for port 0
#   loses its port with shutdown(SHUT_RD): a stranger can bind it at once; one that asked by number keeps it.
# How: one connection that the server closes first, with the option left on and switched off; then shutdown(SHUT_RD) of two
#   listeners; each time another socket tries to bind the port.
# Why: who wants a port that refuses clients and is nobody else's needs bind by number, listen, shutdown(SHUT_RD) and the
#   option off; and has to switch it on again before clients come, or its own next start fails.
set -euo pipefail

folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
echo "kernel $(uname -r), python $(python3 -c 'import platform; print(platform.python_version())')"

cat >"$folder/ports.py" <<'PYTHON'
import errno
import socket

REUSE = (socket.SOL_SOCKET, socket.SO_REUSEADDR)


def outcome(port, reuse):
    with socket.socket() as other:
        other.setsockopt(*REUSE, int(reuse))
        try:
            other.bind(("127.0.0.1", port))
            return "bound"
        except OSError as error:
            return errno.errorcode[error.errno]


def after_a_connection(off):
    with socket.socket() as listener:
        listener.setsockopt(*REUSE, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        if off:
            listener.setsockopt(*REUSE, 0)
        address = listener.getsockname()
        client = socket.create_connection(address)
        # The server closes first, so that its side is the one in TIME_WAIT.
        listener.accept()[0].close()
        client.recv(1)
        client.close()
    return outcome(address[1], True)


def after_shutdown(by_number):
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        if by_number:
            first.close()
            first = socket.socket()
            first.bind(("127.0.0.1", port))
        first.listen()
        first.shutdown(socket.SHUT_RD)
        seen = outcome(port, False)
        first.close()
        return seen


print("left on:", after_a_connection(off=False))
print("switched off:", after_a_connection(off=True))
print("chosen by the kernel, then shutdown:", after_shutdown(by_number=False))
print("asked for by number, then shutdown:", after_shutdown(by_number=True))
PYTHON

seen=$(python3 "$folder/ports.py")
printf '%s\n' "$seen"

expected='left on: bound
switched off: EADDRINUSE
chosen by the kernel, then shutdown: bound
asked for by number, then shutdown: EADDRINUSE'
if [ "$seen" != "$expected" ]; then
    echo "changed: another outcome"
    exit 1
fi
echo ok
