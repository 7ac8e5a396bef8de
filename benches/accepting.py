#!/usr/bin/env python3
"""What it costs that workers accept by themselves behind clusterd, beside the same servers that share the port by
SO_REUSEPORT without it, in one run and in turn: connections a second, CPU time a connection, how late answers are, how
evenly connections are spread, and what waits or is lost when a worker is stopped.

    benches/accepting.py PROGRAM [BEFORE]       (release builds of `clusterd`)
    unshare -n sh -c 'ip link set lo up; exec benches/accepting.py PROGRAM'     (measures --tcp-migrate, too)

Four workers of a server in Go (by seccomp), and of one in C (by the shim; --accept primary as well). `64 clients` each have
a connection for every request and come again once they are answered; `500/s` and `2000/s` come whether others are answered or
not, and their time counts from when they were to come; `64 kept` connections ask again after each answer. busiest/idlest is that
of the four workers. The CPU time is that of all processes of a kind, clusterd included, and not that of the clients.
`one stopped` counts, at 500/s, the clients that wait for a worker that is stopped (SIGSTOP) for a second, and `stopped, killed`
those that are lost when it is killed then, with --tcp-migrate. In parentheses: the
median of the ratios to SO_REUSEPORT, round by round.

CLUSTERD_BENCH_SERVERS (go,c), CLUSTERD_BENCH_ROUNDS (10), CLUSTERD_BENCH_SECONDS (2, a measurement).
"""

import contextlib
import functools
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from programs import end, free_port, until

HERE = pathlib.Path(__file__).resolve().parent / "accepting"
ROOT = HERE.parent.parent
SERVERS = os.environ.get("CLUSTERD_BENCH_SERVERS", "go,c").split(",")
ROUNDS = int(os.environ.get("CLUSTERD_BENCH_ROUNDS", 10))
SECONDS = float(os.environ.get("CLUSTERD_BENCH_SECONDS", 2))
WORKERS = 4
CLIENTS = 64
REUSEPORT = "SO_REUSEPORT"
MIGRATES = pathlib.Path("/proc/sys/net/ipv4/tcp_migrate_req")


def is_private_network():
    """Only the loopback interface is there, as after unshare(1): its settings are nobody else's."""
    return os.geteuid() == 0 and [name for _, name in socket.if_nameindex()] == ["lo"]


def build(folder):
    for name in ["load", "server"]:
        subprocess.run(["cc", "-O2", "-o", f"{folder}/{name}", HERE / f"{name}.c"], check=True)
    environment = {**os.environ, "GO111MODULE": "off", "GOCACHE": str(ROOT / "target/go-cache")}
    if "go" in SERVERS:
        subprocess.run(["go", "build", "-o", f"{folder}/goserver", HERE / "server.go"], env=environment, check=True)


def kinds(programs, server):
    """The flags of clusterd for each kind; `None` without it."""
    found = {}
    for name, program in programs.items():
        if server == "c":
            found[f"{name} --accept workers"] = [program, "--accept", "workers"]
            found[f"{name} --accept primary"] = [program, "--accept", "primary"]
        else:
            found[name] = [program]
    return found | {REUSEPORT: None}


class Running:
    """Four workers of a server on a port of their own."""

    def __init__(self, folder, server, command, *flags):
        self.folder, self.port = folder, free_port()
        words = [f"{folder}/{'goserver' if server == 'go' else 'server'}"]
        environment = {**os.environ, "PORT": str(self.port), "GOMAXPROCS": "2"}
        count = WORKERS
        if command:
            where = ["--bind", f"127.0.0.1:{self.port}", "--workers", str(WORKERS), "--log-level", "error"]
            words, count = [*command, *where, *flags, "--", *words], 1
        else:
            environment["REUSEPORT"] = "1"
        self.home = tempfile.TemporaryDirectory(dir=folder)
        environment["CLUSTERD_HOME"] = self.home.name
        self.children = [
            subprocess.Popen(words, env=environment, process_group=0, stdout=subprocess.DEVNULL)
            for _ in range(count)
        ]

    def __enter__(self):
        try:
            until("every worker serves", lambda: len(self.load("closed", CLIENTS, 0.2)["servers"]) == WORKERS)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        for child in self.children:
            end(child)

    def load(self, *words):
        return json.loads(subprocess.check_output(self.command(*words)))

    def command(self, how, number, seconds):
        return [f"{self.folder}/load", how, str(self.port), str(number), str(seconds)]

    def cpu_time(self):
        """In seconds, of all threads that live, to the nanosecond (proc_pid_schedstat(5))."""
        total = 0
        for pid in descendants([child.pid for child in self.children]):
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def stop_one(self, then):
        """What clients see while a worker is stopped for a second."""
        pid = int(next(iter(self.load("closed", CLIENTS, 0.2)["servers"])))
        clients = subprocess.Popen(self.command("open", 500, 3), stdout=subprocess.PIPE)
        time.sleep(0.7)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1)
        os.kill(pid, then)
        seen, _ = clients.communicate()
        return json.loads(seen)


def descendants(found):
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def spread(seen, what="servers"):
    shares = sorted(seen[what].values())
    return shares[-1] / shares[0] if len(shares) == WORKERS else float("inf")


def connections(running):
    before = running.cpu_time()
    seen = running.load("closed", CLIENTS, SECONDS)
    return {
        "64 clients: connections/s": seen["answered"] / seen["seconds"],
        "64 clients: CPU us/connection": (running.cpu_time() - before) * 1e6 / seen["answered"],
        "64 clients: busiest/idlest": spread(seen),
        "64 clients: lost": seen["lost"],
    }


def at_rate(rate, running):
    before = running.cpu_time()
    seen = running.load("open", rate, SECONDS)
    return {
        f"{rate}/s: p50 ms": seen["p50"],
        f"{rate}/s: p99 ms": seen["p99"],
        f"{rate}/s: CPU us/connection": (running.cpu_time() - before) * 1e6 / seen["answered"],
        f"{rate}/s: busiest/idlest": spread(seen),
        f"{rate}/s: lost": seen["lost"],
    }


def kept(running):
    seen = running.load("kept", CLIENTS, SECONDS)
    return {
        "64 kept: requests/s": seen["answered"] / seen["seconds"],
        "64 kept: most/fewest connections": spread(seen, "connections"),
        "64 kept: busiest/idlest": spread(seen),
        "64 kept: lost": seen["lost"],
    }


def stopped(running):
    return {"one stopped: wait": running.stop_one(signal.SIGCONT)["late"]}


MEASUREMENTS = [connections, functools.partial(at_rate, 500), functools.partial(at_rate, 2000), kept, stopped]


def measure(folder, server, commands):
    """One round: all kinds run, and each measurement is made of one after the other."""
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(Running(folder, server, command)) for name, command in commands.items()}
        values = {name: {} for name in commands}
        for measurement in MEASUREMENTS:
            for name, one in running.items():
                values[name] |= measurement(one)
    for name, command in commands.items():
        if is_private_network() and "primary" not in (command or []):
            MIGRATES.write_text("0")
            with Running(folder, server, command, "--tcp-migrate") as one:
                values[name]["stopped, killed: lost"] = one.stop_one(signal.SIGKILL)["lost"]
            MIGRATES.write_text("0")
    return values


def report(server, rounds):
    """Medians, and beside them the medians of each round's ratio to SO_REUSEPORT without clusterd."""
    names = list(rounds[0])
    width = max(18, max(len(name) for name in names)) + 2
    print(f"\n{f'{server}, {len(rounds)} rounds':34}" + "".join(f"{name:>{width}}" for name in names))
    for what in rounds[0][REUSEPORT]:
        cells = []
        for name in names:
            values = [seen[name][what] for seen in rounds if what in seen[name]]
            if not values:
                cells.append("-")
                continue
            cell = f"{statistics.median(values):,.2f}"
            if name != REUSEPORT and all(seen[REUSEPORT][what] for seen in rounds):
                ratios = [seen[name][what] / seen[REUSEPORT][what] for seen in rounds]
                cell += f" ({statistics.median(ratios):.3f}x)"
            cells.append(cell)
        print(f"{what:34}" + "".join(f"{cell:>{width}}" for cell in cells), flush=True)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    programs = dict(zip(["clusterd", "before"], map(os.path.abspath, sys.argv[1:])))
    with tempfile.TemporaryDirectory() as folder:
        build(folder)
        for server in SERVERS:
            rounds = []
            commands = list(kinds(programs, server).items())
            for number in range(ROUNDS):
                order = commands if number % 2 == 0 else commands[::-1]
                seen = measure(folder, server, dict(order))
                rounds.append({name: seen[name] for name, _ in commands})
            report(server, rounds)


if __name__ == "__main__":
    main()
