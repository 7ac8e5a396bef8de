#!/usr/bin/env python3
"""What it costs to write log files: a worker that writes as fast as it can, into its file by itself and through clusterd,
in one run and in turn.

    benches/logs.py [PROGRAM]      (a release build of `clusterd`)

One of two workers has a child that writes lines of 100 bytes. How long that takes until all of them are in the file gives the
rate; how many are not there is what was lost. Clients connect meanwhile, as often as they are answered, and wait for their answer:
the 99th percentile of that is given for both.

CLUSTERD_BENCH_LINES (5000000), CLUSTERD_BENCH_ROUNDS (3). It fails if a line is lost.
"""

import asyncio
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from programs import free_port

LINES = int(os.environ.get("CLUSTERD_BENCH_LINES", 5_000_000))
ROUNDS = int(os.environ.get("CLUSTERD_BENCH_ROUNDS", 3))
CLIENTS = 8
PATIENCE = 300
REQUEST = b"GET / HTTP/1.0\r\n\r\n"

WORKER = """
import os, subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/begin':
            file = os.environ['WRITE_TO']
            to = open(file, 'w') if file else None
            script = 'my $line = q(x) x 99; for (1..$ARGV[0]) { print $line, qq(\\\\n) }'
            subprocess.Popen(['perl', '-e', script, os.environ['LINES']], stdout=to)
        self.send_response(200)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def log_message(self, *_):
        pass

HTTPServer.request_queue_size = 128
HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
"""


async def ask(port, path="/"):
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    if b" 200 " not in answer:
        raise ConnectionError("a client was not answered")
    return time.monotonic() - start


async def wait_until_served(port):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await ask(port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def measure(port, file):
    """Bytes a second, and the waiting time of clients."""
    await wait_until_served(port)
    waits, size = [], LINES * 100
    is_over = asyncio.Event()

    async def client():
        while not is_over.is_set():
            waits.append(await ask(port))

    start = time.monotonic()
    await ask(port, "/begin")
    clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
    last, since = 0, start
    while last < size and time.monotonic() - since < 5:
        await asyncio.sleep(0.02)
        now = file.stat().st_size if file.exists() else 0
        if now != last:
            last, since = now, time.monotonic()
    is_over.set()
    await asyncio.gather(*clients)
    return last / (since - start), statistics.quantiles(waits, n=100)[98], (size - last) // 100


def run(program, folder, by_itself):
    file, port = folder / "out.log", free_port()
    file.unlink(missing_ok=True)
    flags = ["--bind", f"127.0.0.1:{port}", "--workers", "2", "--log-level", "warn", "--log-max-size", "off"]
    flags += [] if by_itself else ["--out-file", str(file)]
    environment = os.environ | {"LINES": str(LINES), "WRITE_TO": str(file) if by_itself else ""}
    command = [program, *flags, "--", sys.executable, str(folder / "worker.py")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        return asyncio.run(measure(port, file))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        file.unlink(missing_ok=True)


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "target/release/clusterd"
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "worker.py").write_text(WORKER)
        for number in range(ROUNDS):
            own, ours = run(program, folder, True), run(program, folder, False)
            rounds.append((ours[0] / own[0], ours[1] / own[1], ours[2]))
            print(
                f"round {number + 1}: by itself {own[0] / 1e6:.0f} MB/s, p99 {own[1] * 1e3:.1f} ms; "
                f"through clusterd {ours[0] / 1e6:.0f} MB/s, p99 {ours[1] * 1e3:.1f} ms, {ours[2]} lines lost"
            )
    rate, wait = (statistics.median(column) for column in list(zip(*rounds))[:2])
    lost = sum(lost for _, _, lost in rounds)
    print(f"median: {rate:.2f}x of the rate, {wait:.2f}x of the p99; {lost} lines lost")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
