#!/usr/bin/env python3
"""What clients that keep their connections notice of reloads: requests that fail, and how long a reload takes.

    benches/reload.py PROGRAM...      (each a release build of `clusterd`, or `cluster` or `pm2` for Node's own cluster and PM2)

Four workers of each server, and as many clients of each kind at the same time, 64 in all, which ask again 1 to 40 ms after
each answer. A reload begins once the one before has ended and its share of the requests is done; afterwards clients go on
until all are. Servers and clients are those of tests/e2e/fixtures/kept; `.ci/servers` installs what they need. By Node's
cluster and by PM2 only the servers of Node are started.

CLUSTERD_BENCH_SERVERS and CLUSTERD_BENCH_CLIENTS (names with commas between them; all), CLUSTERD_BENCH_CONNECTIONS (64),
CLUSTERD_BENCH_RELOADS (20), CLUSTERD_BENCH_REQUESTS (200000), CLUSTERD_BENCH_OPTIONS (of clusterd),
CLUSTERD_BENCH_HYPER (target/debug/examples/hyper, which `cargo build --example hyper` makes).
"""

import collections
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

from programs import PATIENCE, end, free_port, until

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEPT = ROOT / "tests/e2e/fixtures/kept"
TOOLS = pathlib.Path(os.environ.get("CLUSTERD_CI_TOOLS", ROOT / "target/ci-tools"))
SERVERS = json.loads((KEPT / "servers.json").read_text())
CLIENTS = json.loads((KEPT / "clients.json").read_text())
OF_NODE = ["node", "express"]

CONNECTIONS = int(os.environ.get("CLUSTERD_BENCH_CONNECTIONS", 64))
RELOADS = int(os.environ.get("CLUSTERD_BENCH_RELOADS", 20))
REQUESTS = int(os.environ.get("CLUSTERD_BENCH_REQUESTS", 200000))
OPTIONS = os.environ.get("CLUSTERD_BENCH_OPTIONS", "").split()
HYPER = os.environ.get("CLUSTERD_BENCH_HYPER", str(ROOT / "target/debug/examples/hyper"))
WORKERS = 4


def environment(**more):
    folders = ["python/bin", "node/node_modules/.bin", "npm/node_modules/.bin"]
    path = os.pathsep.join([*(str(TOOLS / folder) for folder in folders), os.environ["PATH"], "/usr/sbin"])
    return {**os.environ, "PATH": path, "NODE_PATH": str(TOOLS / "node/node_modules"), **more}


def chosen(variable, known):
    names = os.environ.get(variable, ",".join(known)).split(",")
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"{variable}: not known: {', '.join(unknown)}")
    return names


class Place:
    """A folder for one run, and what stands in braces in the lists."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.said = open(f"{folder}/said", "w+b")

    def last_words(self):
        self.said.seek(max(0, os.fstat(self.said.fileno()).st_size - 4000))
        return self.said.read().decode(errors="replace")

    def command(self, words, build=""):
        python = TOOLS / "python/bin/python3"
        values = {
            "servers": KEPT / "servers",
            "clients": KEPT / "clients",
            "build": f"{self.folder}/{build}",
            "folder": self.folder,
            "port": self.port,
            "hyper": HYPER,
            "python": python if python.exists() else "python3",
        }
        for name, value in values.items():
            words = [word.replace("{" + name + "}", str(value)) for word in words]
        return words

    def program(self, entry, name):
        """Its words, once it is built, in a folder of its own."""
        if "build" in entry:
            os.makedirs(f"{self.folder}/{name}")
            more = {"GO111MODULE": "off", "GOCACHE": str(ROOT / "target/go-cache")}
            subprocess.run(self.command(entry["build"], name), env=environment(**more), check=True)
        return self.command(entry["command"], name)

    def start(self, command, **options):
        """In a process group of its own, so that all of it can be ended. What it says is shown if the run fails."""
        more = {**options.pop("env", {}), "PORT": str(self.port)}
        options.setdefault("stderr", self.said)
        return subprocess.Popen(command, env=environment(**more), cwd=self.folder, start_new_session=True, **options)


class Clusterd:
    def __init__(self, program, place, server):
        self.program, self.home = os.path.abspath(program), f"{place.folder}/home"
        words = [self.program, "--bind", f"127.0.0.1:{place.port}", "--workers", str(WORKERS), "--metrics", "127.0.0.1:0"]
        words += ["--log-level", "warn", *OPTIONS, "--", *server]
        self.child = place.start(words, env={"CLUSTERD_HOME": self.home}, stdout=subprocess.DEVNULL)

    def reload(self):
        more = {"CLUSTERD_HOME": self.home}
        subprocess.run([self.program, "reload"], env=environment(**more), check=True, stdout=subprocess.DEVNULL)

    def end(self):
        end(self.child, signal.SIGINT)


class Cluster:
    """Node's own."""

    def __init__(self, place, server):
        node, app = server
        primary = str(pathlib.Path(__file__).parent / "reload/cluster.js")
        self.child = place.start([node, primary, str(WORKERS), app], stdout=subprocess.PIPE)

    def reload(self):
        self.child.send_signal(signal.SIGHUP)
        if self.child.stdout.readline() != b"reloaded\n":
            raise ChildProcessError("Node's cluster has ended")

    def end(self):
        end(self.child, signal.SIGKILL)


class Pm2:
    """With a daemon of its own, whose pid is in its folder."""

    def __init__(self, place, server):
        self.place, self.home = place, f"{place.folder}/pm2"
        self.run("start", server[1], "-i", str(WORKERS), "--name", "app")

    def run(self, *words):
        more = {"PM2_HOME": self.home, "PORT": str(self.place.port)}
        subprocess.run(["pm2", "--silent", *words], env=environment(**more), check=True, cwd=self.place.folder)

    def reload(self):
        self.run("reload", "app")

    def end(self):
        daemon = int(pathlib.Path(self.home, "pm2.pid").read_text())
        self.run("kill")
        until("PM2's daemon is gone", lambda: not os.path.exists(f"/proc/{daemon}"))


def primary(program, place, server):
    kinds = {"cluster": Cluster, "pm2": Pm2}
    return kinds[program](place, server) if program in kinds else Clusterd(program, place, server)


class Clients:
    """A program with some clients; the lists' load.js says what it reads and writes."""

    def __init__(self, name, place, connections):
        command = [*place.program(CLIENTS[name], name), f"http://127.0.0.1:{place.port}/", str(connections)]
        self.child = place.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.failures = collections.Counter()

    def requests(self):
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        return self.read()

    def finish(self):
        self.child.stdin.close()
        requests = self.read()
        self.child.wait(PATIENCE)
        return requests

    def read(self):
        counts = json.loads(self.child.stdout.readline())
        self.failures = collections.Counter(counts["failures"])
        return counts["requests"]


Row = collections.namedtuple("Row", "requests failures by_kind reloads")


def measured(program, name, kinds):
    with tempfile.TemporaryDirectory() as folder:
        place = Place(folder)
        server = place.program(SERVERS[name], name)
        config = (KEPT / "servers/nginx.conf").read_text()
        pathlib.Path(folder, "nginx.conf").write_text(place.command([config])[0])
        cluster = primary(program, place, server)
        clients = {}
        try:
            until(f"{name} serves", lambda: answers(place.port))
            # Some for workers that start late.
            time.sleep(3)
            for kind in kinds:
                clients[kind] = Clients(kind, place, CONNECTIONS // len(kinds))
            return load(cluster, clients)
        except Exception:
            print(place.last_words(), file=sys.stderr)
            raise
        finally:
            for running in clients.values():
                end(running.child, signal.SIGKILL)
            cluster.end()


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return b" 200 " in client.recv(100)
    except OSError:
        return False


def load(cluster, clients):
    def requests():
        return sum(running.requests() for running in clients.values())

    until("all clients ask", lambda: all(running.requests() > CONNECTIONS for running in clients.values()))
    reloads = []
    for number in range(RELOADS):
        until("there are enough requests", lambda: requests() >= REQUESTS * number / RELOADS)
        start = time.monotonic()
        cluster.reload()
        reloads.append(time.monotonic() - start)
    until("there are enough requests", lambda: requests() >= REQUESTS)
    total = sum(running.finish() for running in clients.values())
    failures, by_kind = collections.Counter(), {}
    for kind, running in clients.items():
        failures += running.failures
        by_kind[kind] = sum(running.failures.values())
    return Row(total, failures, by_kind, reloads)


def show(name, program, row):
    failed = sum(row.failures.values())
    reloads = f"{statistics.median(row.reloads):>8.2f} {max(row.reloads):>8.2f}"
    print(f"{name:>16} {row.requests:>9} {failed:>7} {reloads}  {program}", flush=True)
    if failed:
        print(f"{'':>16} by client: {counted(row.by_kind)}; by kind: {counted(row.failures)}", flush=True)


def counted(counts):
    return ", ".join(f"{kind} {count}" for kind, count in counts.items() if count)


def main():
    programs = sys.argv[1:]
    if not programs:
        sys.exit(__doc__)
    servers = chosen("CLUSTERD_BENCH_SERVERS", SERVERS)
    kinds = chosen("CLUSTERD_BENCH_CLIENTS", CLIENTS)
    print(f"{WORKERS} workers, {CONNECTIONS} clients ({', '.join(kinds)}), {RELOADS} reloads")
    print(f"{'server':>16} {'requests':>9} {'failed':>7} {'median s':>8} {'most s':>8}")
    for name in servers:
        for program in programs:
            if name in OF_NODE or program not in ("cluster", "pm2"):
                show(name, program, measured(program, name, kinds))


main()
