#!/usr/bin/env python3
"""How long a command takes while twenty apps run in the background: clusterd's, and PM2's of the same name.

    benches/commands.py [PROGRAM]      (a release build of `clusterd`, and `pm2` on PATH)

Each command in turn with PM2's, round after round; medians of the time from its start to its end.

CLUSTERD_BENCH_APPS (20), CLUSTERD_BENCH_SERVER (node, or c), CLUSTERD_BENCH_ROUNDS (10).
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("CLUSTERD_BENCH_SERVER", "node")

from background import APPS, SERVER, clusterd, pm2, server  # noqa: E402

ROUNDS = int(os.environ.get("CLUSTERD_BENCH_ROUNDS", 10))
COMMANDS = [
    ("list", "list", "list"),
    ("the same for programs", "list -o json", "jlist"),
    ("describe", "describe app0", "describe app0"),
    ("logs, the last lines", "logs app0 --nostream", "logs app0 --nostream"),
    ("stop", "stop app1", "stop app1"),
    ("start", "start app1", "start app1"),
    ("restart", "restart app1", "restart app1"),
    ("help", "--help", "--help"),
]


def seconds(program, words, environment):
    begin = time.perf_counter()
    subprocess.run([program, *words.split()], env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main():
    program = os.path.abspath((sys.argv[1:] or ["target/release/clusterd"])[0])
    with tempfile.TemporaryDirectory() as folder:
        command = server(folder)
        places = [pathlib.Path(folder, name) for name in ("clusterd", "pm2")]
        for place in places:
            place.mkdir()
        with clusterd(program, places[0], command) as (ours, _), pm2(places[1], command) as (theirs, _):
            print(f"{APPS} apps ({SERVER}) run; ms, medians of {ROUNDS}")
            for name, own, other in COMMANDS:
                times = [
                    (seconds(program, own, ours), seconds("pm2", other, theirs)) for _ in range(ROUNDS)
                ]
                clusterds, pm2s = (statistics.median(each) * 1000 for each in zip(*times))
                print(f"{name:<24} clusterd {clusterds:>7.1f}   PM2 {pm2s:>7.1f}   {clusterds / pm2s:.3f}")


main()
