#!/usr/bin/env python3
"""What apps in the background cost in memory when nothing happens: clusterd's processes of each, and PM2's daemon.

    benches/memory.py [PROGRAM [BEFORE]]      (release builds of `clusterd`; PM2 is measured if `pm2` is on PATH)

Twenty apps of one worker each, a server that nobody asks anything. PSS is what counts: a page that n processes share counts
as its nth part for each (proc_pid_smaps(5)). What node's own processes share with PM2's daemon, which is a node as well,
makes its share smaller: nothing else should run by node meanwhile. Workers themselves are not counted.

CLUSTERD_BENCH_APPS (20), CLUSTERD_BENCH_SERVER (c, or node), CLUSTERD_BENCH_SECONDS (10, idle before the look).
"""

import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

from background import APPS, SERVER, clusterd, pm2, server

SECONDS = float(os.environ.get("CLUSTERD_BENCH_SECONDS", 10))


def memory(pid):
    """Kilobytes: RSS, PSS and what is the process's own."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        sizes = {words[0]: int(words[1]) for words in map(str.split, file) if words[0].endswith(":")}
    return sizes["Rss:"], sizes["Pss:"], sizes["Private_Clean:"] + sizes["Private_Dirty:"]


def measured(name, started):
    """Prints a line for each kind of process, and answers with the sum of their PSS."""
    with started as (_, processes):
        time.sleep(SECONDS)
        kinds = {kind: [memory(pid) for pid in pids] for kind, pids in processes.items()}
    for kind, looks in kinds.items():
        resident, shared, own = zip(*looks)
        print(f"{name + ', ' + kind:<24} {len(looks):>3} {statistics.median(resident):>8.0f} {max(resident):>8} "
              f"{statistics.median(shared):>8.0f} {statistics.median(own):>8.0f} {sum(shared):>8}")
    return sum(shared for looks in kinds.values() for _, shared, _ in looks)


def main():
    programs = [os.path.abspath(program) for program in sys.argv[1:] or ["target/release/clusterd"]]
    print(f"{APPS} idle apps ({SERVER}) of one worker each; medians, and sums of all of a kind, in kB")
    print(f"{'':<24} {'':>3} {'RSS':>8} {'most':>8} {'PSS':>8} {'own':>8} {'PSS, all':>8}")
    with tempfile.TemporaryDirectory() as folder:
        command, sums = server(folder), {}
        for name, program in zip(["clusterd", "before"], programs):
            place = pathlib.Path(folder, name)
            place.mkdir()
            sums[name] = measured(name, clusterd(program, place, command))
        if shutil.which("pm2"):
            sums["PM2"] = measured("PM2", pm2(folder, command))
    for name in sums.keys() - {"clusterd"}:
        print(f"clusterd: {sums['clusterd']} kB, {sums['clusterd'] / sums[name]:.2f} of {name}")


main()
