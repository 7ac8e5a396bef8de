#!/bin/bash
# Subject: Linux pidfds: PIDFD_GET_INFO with PIDFD_INFO_EXIT, and SO_PEERPIDFD; seen on Linux 6.18 (x86_64); needs 6.16 or later.
# Expected: only a parent learns how a process ended, once; when a shell has reaped it, it is gone for everybody else.
#   A pidfd that polls as readable has the status ready.
# Seen: the other way round, twice. While the process is a zombie its pidfd is readable (POLLIN) but has no exit status; as soon
#   as somebody reaped it (POLLIN and POLLHUP) any holder of a pidfd can read the status, whoever it is: no child, no root.
#   And the pidfd need not have been taken in time: SO_PEERPIDFD on a Unix socket, asked after the peer has been reaped and
#   has left /proc, still gives one that tells the status.
# How: a server that is a grandchild (its parent is sh, which reaps it and goes on) connects to a Unix socket and ends with
#   status 7; the grandparent asks, as an unprivileged user where it can (uid 65534 if started by root).
# Why: a process manager can tell how the real server under `sh -c` or `npm start` ended although the wrapper swallows it, and
#   must not ask at the pidfd's first wake-up: it has to wait for POLLHUP, or reap the process itself.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
echo "kernel $(uname -r)"
cat > "$dir/probe.py" <<'PY'
import fcntl, os, select, socket, struct, subprocess, sys

EXIT, SO_PEERPIDFD, SIZE = 1 << 3, 77, 64
GET_INFO = 3 << 30 | SIZE << 16 | 0xFF << 8 | 11

def status(pidfd):
    info = bytearray(SIZE)
    struct.pack_into("Q", info, 0, EXIT)
    fcntl.ioctl(pidfd, GET_INFO, info)
    known = struct.unpack_from("Q", info)[0] & EXIT
    return os.waitstatus_to_exitcode(struct.unpack_from("i", info, 60)[0]) if known else None

def events(pidfd):
    poll = select.poll(); poll.register(pidfd, select.POLLIN)
    return poll.poll(10000)[0][1] & (select.POLLIN | select.POLLHUP)

child = os.fork() or os._exit(5)
own = os.pidfd_open(child)
zombie = (events(own), status(own))
os.waitpid(child, 0)
reaped = (events(own), status(own))

name = f"\0probe-{os.getpid()}"
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(name); listener.listen(); listener.settimeout(10)
server = f"import os, socket; s = socket.socket(1, 5); s.connect({name!r}); s.send(b'%d' % os.getpid()); s.recv(1); os._exit(7)"
shell = subprocess.Popen(["sh", "-c", '"$0" -c "$1"; echo reaped $?; read line', sys.executable, server],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
link, _ = listener.accept()
pid = int(link.recv(20))
os.getuid() or os.setuid(65534)
link.send(b"x")
said = shell.stdout.readline().strip()
late = struct.unpack("i", link.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4))[0]
seen = [zombie, reaped, said, os.path.exists(f"/proc/{pid}"), status(late)]
shell.stdin.close(); shell.wait(10)
print("own child, zombie: events %d, status %s; reaped: events %d, status %s" % (*zombie, *reaped))
print(f"grandchild, uid {os.getuid()}: shell says {said!r}; in /proc: {seen[3]}; by the pidfd of the socket: {seen[4]}")
if seen != [(1, None), (17, 5), "reaped 7", False, 7]:
    raise SystemExit(f"changed: {seen}")
PY
python3 "$dir/probe.py"
echo ok
