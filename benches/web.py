#!/usr/bin/env python3
"""What it costs to watch a home on the page: the CPU time of `clusterd web` and of the apps' clusterds.

    benches/web.py [PROGRAM]      (a release build of `clusterd`, a C compiler)

Twenty apps of 64 workers each, servers in C, and a client that connects to each app five times a second, so that there is
something to tell each fifth of a second. First nobody watches, then one page, then four. CPU time is the kernel's, in
nanoseconds (schedstat of each thread), and told in percent of one CPU.

CLUSTERD_BENCH_APPS (20), CLUSTERD_BENCH_WORKERS (64), CLUSTERD_BENCH_SECONDS (20, for each of the three).
"""

import contextlib
import http.client
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

os.environ.setdefault("CLUSTERD_BENCH_WORKERS", "64")

from background import APPS, WORKERS, clusterd, server  # noqa: E402
from programs import until  # noqa: E402

SECONDS = float(os.environ.get("CLUSTERD_BENCH_SECONDS", 20))
TOKEN = "0123456789abcdef"


def cpu_seconds(pid):
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


class Page:
    """Somebody who watches: reads all that comes, and counts it."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.request("GET", "/live", headers={"Authorization": f"Bearer {TOKEN}"})
        self.answer, self.bytes, self.ticks = self.connection.getresponse(), 0, 0
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        with contextlib.suppress(http.client.IncompleteRead):  # The page is ended with the bench.
            while piece := self.answer.read1(1 << 16):
                self.bytes += len(piece)
                self.ticks += piece.count(b'{"tick":')


def connect_again_and_again(ports, ended):
    while not ended.is_set():
        for port in ports:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                connection.recv(1000)
            ended.wait(0.2 / len(ports))


def phase(name, web, primaries, pages):
    time.sleep(2)  # What is told once, at the beginning, is not what watching costs.
    before = {pid: cpu_seconds(pid) for pid in [web, *primaries]}
    bytes_before, ticks_before = sum(page.bytes for page in pages), sum(page.ticks for page in pages)
    start = time.monotonic()
    time.sleep(SECONDS)
    passed = time.monotonic() - start
    used = {pid: 100 * (cpu_seconds(pid) - before[pid]) / passed for pid in before}
    read = sum(page.bytes for page in pages) - bytes_before
    ticks = sum(page.ticks for page in pages) - ticks_before
    of_web, of_primaries = used[web], sum(used[pid] for pid in primaries)
    each = max(len(pages), 1) * passed
    print(f"{name:<18} {of_web:>6.2f} {of_primaries:>11.2f} {of_web + of_primaries:>6.2f} "
          f"{read / each / 1000:>9.0f} {ticks / each / APPS:>12.1f}")
    return of_web + of_primaries


def main():
    program = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/release/clusterd")
    print(f"{APPS} apps of {WORKERS} workers each; CPU in percent of one")
    print(f"{'':<18} {'web':>6} {'clusterds':>11} {'all':>6} {'kB/s/page':>9} {'ticks/s/app':>12}")
    with tempfile.TemporaryDirectory() as folder, clusterd(program, folder, server(folder)) as (environment, processes):
        primaries = processes["primary"]
        listed = subprocess.run([program, "list", "-o", "json"], env=environment, check=True, capture_output=True)
        ports = sorted(set(map(int, re.findall(rb'"address":"\[::\]:(\d+)"', listed.stdout.replace(b" ", b"")))))
        assert len(ports) == APPS, ports
        web = subprocess.Popen([program, "web", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True,
                               env={**environment, "CLUSTERD_WEB_TOKEN": TOKEN})
        ended = threading.Event()
        try:
            port = int(re.search(r":(\d+)/", web.stdout.readline())[1])
            threading.Thread(target=connect_again_and_again, args=(ports, ended), daemon=True).start()
            nobody = phase("nobody watches", web.pid, primaries, [])
            pages = [Page(port)]
            one = phase("one page", web.pid, primaries, pages)
            pages += [Page(port) for _ in range(3)]
            four = phase("four pages", web.pid, primaries, pages)
            print(f"watching takes {one - nobody:.2f} % of a CPU, and {four - nobody:.2f} % with four pages")
        finally:
            ended.set()
            web.send_signal(signal.SIGTERM)
            web.wait()


main()
