#!/bin/bash
# Subject: Linux TCP, SK_MEMINFO_DROPS of a listening socket in INET_DIAG (the `d` of `ss -m`); seen on Linux 6.18 (x86_64).
# Expected: how many clients found the accept queue full, which nothing else tells of one socket: TcpExtListenOverflows and
#   TcpExtListenDrops are of the whole network namespace.
# Seen: packets. A client that is dropped tries again each second at first (tcp_syn_linear_timeouts, since 6.5), not after 1, 3 and
#   7 s: 3 clients are 12 drops within 3.5 s. What a socket filter keeps out counts as well, and in neither counter of the namespace.
#   The count lives as long as the socket, over shutdown(2) and another listen(2). And a queue of N takes N + 1.
# How: 6 clients of a listener with a backlog of 2, and then one that a filter keeps out, in a network namespace of their own.
# Why: an alert on either counter alone is wrong: the one rises without any overflow, the other for other programs. Together they tell.
set -euo pipefail

exec unshare --user --map-root-user --net sh -c 'ip link set lo up && exec python3 -' <<'PYTHON'
import ctypes, socket, struct, sys, time

def told(port):
    """Accept queue, its limit and what was dropped, as INET_DIAG tells them."""
    diag = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)
    request = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 1 << 6, 0, 1 << 10) + bytes(48)
    diag.send(struct.pack("=IHHII", 16 + len(request), 20, 0x301, 1, 0) + request)
    while True:
        answer, at = diag.recv(65536), 0
        while at < len(answer):
            length, kind = struct.unpack_from("=IH", answer, at)
            body, at = answer[at + 16 : at + length], at + (length + 3 & ~3)
            if kind == 3:
                raise LookupError(port)
            if struct.unpack_from(">H", body, 4)[0] != port:
                continue
            queue, limit = struct.unpack_from("=II", body, 56)
            attribute = 72
            while struct.unpack_from("=HH", body, attribute)[1] != 7:
                attribute += struct.unpack_from("=H", body, attribute)[0] + 3 & ~3
            return queue, limit, struct.unpack_from("=9I", body, attribute + 4)[8]

def namespace():
    """TcpExtListenOverflows and TcpExtListenDrops."""
    names, numbers = [line.split() for line in open("/proc/self/net/netstat") if line.startswith("TcpExt:")]
    counts = dict(zip(names, numbers))
    return int(counts["ListenOverflows"]), int(counts["ListenDrops"])

def clients(count):
    made = [socket.socket() for _ in range(count)]
    for client in made:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
    return made

def expect(what, seen, wanted):
    print(f"{what}: {seen}")
    if not (wanted(seen) if callable(wanted) else seen == wanted):
        sys.exit(f"changed: {what}")

listener = socket.socket()
# By number: shutdown(2) would lose one that the kernel chose.
listener.bind(("127.0.0.1", 8080))
listener.listen(2)
port = listener.getsockname()[1]

first = clients(6)
time.sleep(0.3)
expect("queue, limit and drops with 6 clients and listen(2)", told(port), (3, 2, 3))
time.sleep(3.2)
expect("drops 3.5 s later", told(port)[2], 12)
expect("overflows and drops of the namespace", namespace(), (12, 12))

for client in first:
    client.close()
for _ in range(3):
    listener.accept()[0].close()
nothing = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))
listener.setsockopt(socket.SOL_SOCKET, 26, struct.pack("=HxxxxxxQ", 1, ctypes.addressof(nothing)))
before = told(port)[2]
kept_out = clients(1)
time.sleep(0.3)
expect("drops that a filter of the socket makes", told(port)[2] - before, 1)
expect("the namespace knows nothing of it", namespace(), (12, 12))
listener.shutdown(socket.SHUT_RD)
listener.listen(2)
expect("the count after shutdown(2) and listen(2)", told(port)[2] >= before + 1, True)
print("ok")
PYTHON
