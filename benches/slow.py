#!/usr/bin/env python3
"""How long clients wait for workers that do one thing at a time and are slow now and then: with --concurrency 1,
without it, and with Node's own cluster, in one run and in turn.

    benches/slow.py [PROGRAM [BEFORE]]      (release builds of `clusterd`; of BEFORE only the defaults are measured)

Four workers answer after 5 ms, or 200 ms by chance. Clients come by chance too, whether others were answered or not, as
many as keep the workers busy for a share of the time; how many that are is measured first, with clients that never leave
a worker idle. What counts is the time from connecting to the end of the answer.

CLUSTERD_BENCH_SLOW_ONE_IN (200), CLUSTERD_BENCH_LOAD (0.7), CLUSTERD_BENCH_SECONDS (5, a round), CLUSTERD_BENCH_ROUNDS (3).
"""

import asyncio
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from programs import free_port

ONE_IN = float(os.environ.get("CLUSTERD_BENCH_SLOW_ONE_IN", 200))
LOAD = float(os.environ.get("CLUSTERD_BENCH_LOAD", 0.7))
SECONDS = float(os.environ.get("CLUSTERD_BENCH_SECONDS", 5))
ROUNDS = int(os.environ.get("CLUSTERD_BENCH_ROUNDS", 3))
WORKERS = 4
HERE = pathlib.Path(__file__).parent / "handoff"
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
PATIENCE = 30


def commands(program, before=None):
    def clusterd(program, *flags):
        def command(port):
            where = ["--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS), "--log-level", "warn"]
            return [program, *where, *flags, "--", "node", str(HERE / "slow.js"), str(port)]

        return command

    def node(port):
        return ["node", str(HERE / "cluster.js"), str(port), str(WORKERS), "slow.js"]

    kinds = {"--concurrency 1": clusterd(program, "--concurrency", "1"), "clusterd": clusterd(program)}
    return kinds | ({"before": clusterd(before)} if before else {}) | {"Node's cluster": node}


async def ask(port):
    """The time until this client was answered."""
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ConnectionError("a client was not answered")
    return time.monotonic() - start


async def serves(port):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            await ask(port)
            # Some for workers that start late.
            await asyncio.sleep(1)
            await asyncio.gather(*(ask(port) for _ in range(8 * WORKERS)))
            return
        except OSError:
            await asyncio.sleep(0.05)
    sys.exit("nothing is served in time")


async def capacity(port):
    """How many clients a second are answered if there is always one for each worker."""
    await serves(port)
    start, answered = time.monotonic(), 0

    async def again_and_again():
        nonlocal answered
        while time.monotonic() < start + SECONDS:
            await ask(port)
            answered += 1

    await asyncio.gather(*(again_and_again() for _ in range(4 * WORKERS)))
    return answered / (time.monotonic() - start)


async def load(port, rate, chance):
    await serves(port)
    clients, at = [], time.monotonic()
    end = at + SECONDS
    while at < end:
        await asyncio.sleep(max(0, at - time.monotonic()))
        clients.append(asyncio.create_task(ask(port)))
        at += chance.expovariate(rate)
    return await asyncio.wait_for(asyncio.gather(*clients), PATIENCE)


def measured(command, what):
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "CLUSTERD_HOME": home, "SLOW_ONE_IN": str(ONE_IN)}
        primary = subprocess.Popen(command(port), env=environment, stdout=subprocess.DEVNULL)
        try:
            return asyncio.run(what(port))
        finally:
            primary.send_signal(signal.SIGTERM)
            primary.wait(PATIENCE)


def main():
    kinds = commands(*map(os.path.abspath, sys.argv[1:] or ["target/release/clusterd"]))
    capacities = {name: measured(command, capacity) for name, command in kinds.items()}
    rate = LOAD * min(capacities.values())
    waited = {name: [] for name in kinds}
    for seed in range(ROUNDS):
        for name, command in kinds.items():
            waited[name] += measured(command, lambda port: load(port, rate, random.Random(seed)))
    print(f"{WORKERS} workers at {LOAD:.0%}, 5 ms or 200 ms (1 in {ONE_IN:g}), {rate:.0f} clients a second; milliseconds")
    print(f"{'':>16} {'most/s':>8} {'clients':>8} {'mean':>8} {'p50':>8} {'p90':>8} {'p99':>8} {'p99.9':>8}")
    for name, times in waited.items():
        times.sort()
        figures = [sum(times) / len(times), *(times[int(len(times) * share)] for share in (0.5, 0.9, 0.99, 0.999))]
        print(f"{name:>16} {capacities[name]:>8.0f} {len(times):>8}", *(f"{figure * 1e3:>8.1f}" for figure in figures))


main()
