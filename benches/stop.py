#!/usr/bin/env python3
"""What it costs to stop many idle workers beside very many sockets in TIME-WAIT: time, CPU and memory of the primary.

    benches/stop.py PROGRAM...      (as root: each run has a network namespace of its own)

Each PROGRAM is a `clusterd`; they take turns. CLUSTERD_BENCH_WORKERS (64), CLUSTERD_BENCH_TIME_WAIT (131000) and
CLUSTERD_BENCH_ROUNDS (3) say how much of it.
"""

import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from programs import until

WORKERS = int(os.environ.get("CLUSTERD_BENCH_WORKERS", 64))
TIME_WAIT = int(os.environ.get("CLUSTERD_BENCH_TIME_WAIT", 131000))
ROUNDS = int(os.environ.get("CLUSTERD_BENCH_ROUNDS", 3))
TICK = os.sysconf("SC_CLK_TCK")


def leave_in_time_wait(count):
    """Opens and closes so many connections, few from each address: with its free ports getting scarce, looking for one takes
    the kernel so long that the first are over before there are enough."""
    with socket.create_server(("0.0.0.0", 9), backlog=1024) as listener:
        for number in range(count):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
                client.bind((f"127.1.0.{1 + number // 1000}", 0))
                client.connect(("127.0.0.1", 9))
                served, _ = listener.accept()
                client.close()
                served.close()


def time_wait():
    with open("/proc/net/sockstat") as table:
        return int(table.read().split("tw ")[1].split()[0])


def cpu(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid, key):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def stop(program):
    """Seconds, seconds of CPU and kilobytes more, from TERM to the end."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "CLUSTERD_HOME": home}
        source = pathlib.Path(__file__).parent.parent / "tests/e2e/fixtures/server.c"
        subprocess.run(["cc", "-O2", "-o", f"{home}/server", source], check=True)
        command = [program, "--port", "8000", "--workers", str(WORKERS), "--log-level", "warn", "--", f"{home}/server"]
        primary = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            return measured(primary)
        finally:
            if primary.poll() is None:
                primary.send_signal(signal.SIGINT)
                primary.wait()


def measured(primary):
    pid = primary.pid
    until("every worker runs", lambda: len(open(f"/proc/{pid}/task/{pid}/children").read().split()) >= WORKERS)
    until("it answers", answers)
    # Each of them has begun to listen by then, and has had a client.
    time.sleep(2)
    for _ in range(2 * WORKERS):
        answers()
    leave_in_time_wait(max(0, TIME_WAIT - time_wait()))
    waiting = time_wait()
    used = last = cpu(pid)
    held = most = memory(pid, "VmRSS")
    start = time.monotonic()
    primary.send_signal(signal.SIGTERM)
    while primary.poll() is None:
        try:
            last, most = cpu(pid), max(most, memory(pid, "VmRSS"))
        except (OSError, StopIteration, IndexError):
            pass  # It has just ended.
        time.sleep(0.01)
    return waiting, time.monotonic() - start, last - used, most - held


def answers():
    try:
        with socket.create_connection(("127.0.0.1", 8000)) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return client.recv(1) != b""
    except OSError:
        return False


def main():
    if os.environ.get("CLUSTERD_BENCH_ALONE") is None:
        os.environ["CLUSTERD_BENCH_ALONE"] = "1"
        # By default the kernel gives the ports of such connections to new ones of the same machine after a second.
        inner = 'ip link set lo up && echo 0 >/proc/sys/net/ipv4/tcp_tw_reuse && exec "$0" "$@"'
        os.execvp("unshare", ["unshare", "--net", "sh", "-c", inner, sys.executable, *sys.argv])
    programs = [os.path.abspath(program) for program in sys.argv[1:]]
    if not programs:
        sys.exit(__doc__)
    figures = {program: [] for program in programs}
    for _ in range(ROUNDS):
        for program in programs:
            figures[program].append(stop(program))
    print(f"{WORKERS} idle workers, stopped; medians of {ROUNDS} rounds")
    for program, rounds in figures.items():
        waiting, taken, used, more = map(statistics.median, zip(*rounds))
        print(f"{program}: {taken:.2f} s, CPU {used:.2f} s, RSS {more:+.0f} kB, beside {waiting:.0f} in TIME-WAIT")


main()
