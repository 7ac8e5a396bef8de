#!/usr/bin/env python3
"""For how long new connections wait while clusterd is replaced in place.

    benches/upgrade.py PROGRAM      (a release build of `clusterd`)

It runs with 64 workers of its own that are stopped, and 1,000 clients wait in its queue, so that all of it has to go along
each time. The pause is what clusterd itself tells (`pause_ms`): from the moment that its front stops to accept until the next
image accepts.

CLUSTERD_BENCH_WORKERS (64), CLUSTERD_BENCH_CLIENTS (1000), CLUSTERD_BENCH_UPGRADES (100).
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

WORKERS = int(os.environ.get("CLUSTERD_BENCH_WORKERS", 64))
CLIENTS = int(os.environ.get("CLUSTERD_BENCH_CLIENTS", 1000))
UPGRADES = int(os.environ.get("CLUSTERD_BENCH_UPGRADES", 100))
DEADLINE = 60


def main():
    program = os.path.abspath(sys.argv[1])
    for workers, clients in ((4, 0), (WORKERS, CLIENTS)):
        pauses = measure(program, workers, clients, UPGRADES)
        at = lambda part: pauses[min(len(pauses) - 1, int(len(pauses) * part))]
        print(
            f"{workers} workers, {clients} queued, {len(pauses)} upgrades: median {statistics.median(pauses):.1f} ms, "
            f"p99 {at(0.99):.1f} ms, longest {pauses[-1]:.1f} ms"
        )


def measure(program, workers, clients, upgrades):
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CLUSTERD_HOME": folder}
        port = free_port()
        command = [program, "--name", "bench", "--port", str(port), "--workers", str(workers), "--queue", "4096"]
        command += ["--queue-timeout", "10m", "--handoff-timeout", "10m", "--redispatch-after", "10m"]
        clusterd = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        connections, stopped = [], []
        try:
            wait_for(lambda: online(program, environment) == workers)
            if clients:
                stopped = [worker["pid"] for worker in describe(program, environment)["workers"]]
                for pid in stopped:
                    os.kill(pid, signal.SIGSTOP)
                # What fits into the workers' channels, beside those that wait.
                while queued(program, environment) < clients:
                    connections += [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
            return sorted(upgrade(program, environment) for _ in range(upgrades))
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            for connection in connections:
                connection.close()
            clusterd.send_signal(signal.SIGINT)
            clusterd.wait()


def upgrade(program, environment):
    subprocess.run([program, "upgrade", "bench"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return describe(program, environment)["upgrade"]["pause_ms"]


def describe(program, environment):
    said = subprocess.run(
        [program, "describe", "bench", "--output", "json"], env=environment, check=True, capture_output=True
    )
    return json.loads(said.stdout)


def online(program, environment):
    said = subprocess.run([program, "describe", "bench", "--output", "json"], env=environment, capture_output=True)
    if said.returncode != 0:
        return 0
    return sum(worker["state"] == "online" for worker in json.loads(said.stdout)["workers"])


def queued(program, environment):
    time.sleep(0.05)
    socket_file = next(name for name in os.listdir(environment["CLUSTERD_HOME"]) if name.endswith(".sock"))
    path = os.path.join(environment["CLUSTERD_HOME"], socket_file)
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(path)
        control.sendall(b"GET /v1/apps?traffic=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := control.recv(65536):
            answer += part
    head, body = answer.split(b"\r\n\r\n", 1)
    start, end = body.index(b"{"), body.rindex(b"}") + 1
    return json.loads(body[start:end])["apps"][0]["traffic"]["queued"]


def wait_for(condition):
    until = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > until:
            raise SystemExit("it takes too long to start")
        time.sleep(0.1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
