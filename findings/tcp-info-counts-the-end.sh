#!/bin/bash
# Subject: Linux TCP, bytes_received and bytes_acked of struct tcp_info; seen on Linux 6.18 (x86_64), iproute2 6.1.
# Expected: bytes that the applications have moved, as their names say: a connection over which 100 bytes came has received 100.
# Seen: sequence numbers. The end of the stream (FIN) counts as one in each direction: 101 once the client has closed its
#   sending side, and 5001 once the server has. The SYN counts on the side that connects, and not on the side that accepts: a
#   client that has sent nothing has 1 acknowledged, its server has received 0.
# How: 100 bytes one way and 5,000 the other, asked of TCP_INFO after each step.
# Why: sums over many short connections are off by one or two bytes each; whoever compares them with a proxy's or a server's own
#   byte counters, or tests for "nothing was sent" with 0, has to know.
set -euo pipefail

echo "kernel $(uname -r), python $(python3 -c 'import platform; print(platform.python_version())')"

seen=$(python3 - <<'PYTHON'
import socket
import struct
import time


def counted(connection):
    """bytes_acked and bytes_received (include/uapi/linux/tcp.h: after 8 bytes, 24 numbers of 32 bits, and two of 64)."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("QQ", info, 8 + 24 * 4 + 2 * 8)


def settled(connection, wanted):
    """What it says when it says what is wanted, or at last."""
    for _ in range(200):
        if counted(connection) == wanted:
            break
        time.sleep(0.01)
    return "acked %d received %d" % counted(connection)


with socket.create_server(("127.0.0.1", 0)) as listener:
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    print("opened: client", settled(client, (1, 0)), "server", settled(server, (0, 0)))
    client.sendall(b"x" * 100)
    server.recv(100)
    server.sendall(b"y" * 5000)
    print("moved: server", settled(server, (5000, 100)))
    client.shutdown(socket.SHUT_WR)
    print("client ends: server", settled(server, (5000, 101)))
    client.shutdown(socket.SHUT_RD)
    server.shutdown(socket.SHUT_WR)
    print("server ends: client", settled(client, (102, 5001)))
PYTHON
)
printf '%s\n' "$seen"

expected='opened: client acked 1 received 0 server acked 0 received 0
moved: server acked 5000 received 100
client ends: server acked 5000 received 101
server ends: client acked 102 received 5001'
if [ "$seen" != "$expected" ]; then
    echo "changed: another count"
    exit 1
fi
echo ok
