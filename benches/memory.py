#!/usr/bin/env python3
"""What apps in the background cost in memory when nothing happens: clusterd's processes of each, and PM2's daemon.

    benches/memory.py [PROGRAM [BEFORE]]      (release builds of `clusterd`; PM2 is measured if `pm2` is on PATH)

Twenty apps of one worker each, a server that nobody asks anything. PSS is what counts: a page that n processes share counts
as its nth part for each (proc_pid_smaps(5)). What node's own processes share with PM2's daemon, which is a node as well,
makes its share smaller: nothing else should run by node meanwhile. Workers themselves are not counted.

CLUSTERD_BENCH_APPS (20), CLUSTERD_BENCH_SERVER (c, or node), CLUSTERD_BENCH_SECONDS (10, idle before the look).
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from programs import free_port, until

APPS = int(os.environ.get("CLUSTERD_BENCH_APPS", 20))
SERVER = os.environ.get("CLUSTERD_BENCH_SERVER", "c")
SECONDS = float(os.environ.get("CLUSTERD_BENCH_SECONDS", 10))
OF_C = pathlib.Path(__file__).resolve().parent.parent / "tests/e2e/fixtures/server.c"
OF_NODE = "require('http').createServer((_, answer) => answer.end('c')).listen(process.env.PORT)\n"


def server(folder):
    """The command of a worker."""
    if SERVER == "node":
        script = pathlib.Path(folder, "server.js")
        script.write_text(OF_NODE)
        return ["node", str(script)]
    subprocess.run(["cc", "-O2", "-o", f"{folder}/server", OF_C], check=True)
    return [f"{folder}/server"]


def memory(pid):
    """Kilobytes: RSS, PSS and what is the process's own."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        sizes = {words[0]: int(words[1]) for words in map(str.split, file) if words[0].endswith(":")}
    return sizes["Rss:"], sizes["Pss:"], sizes["Private_Clean:"] + sizes["Private_Dirty:"]


def guardian(primary):
    for children in pathlib.Path(f"/proc/{primary}/task").glob("*/children"):
        for child in children.read_text().split():
            if pathlib.Path(f"/proc/{child}/comm").read_text() == "clusterd-guard\n":
                return int(child)
    raise LookupError(f"the primary {primary} has no guardian")


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].startswith("Z")
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def clusterd(program, folder, command):
    """The processes: primaries and guardians."""
    environment = {**os.environ, "CLUSTERD_HOME": f"{folder}/clusterd"}
    primaries = []
    try:
        for number in range(APPS):
            options = ["--name", f"app{number}", "--port", str(free_port()), "--workers", "1"]
            words = [program, "start", *options, "--", *command]
            said = subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout
            primaries.append(int(re.search(r"\(pid (\d+)\)", said)[1]))
        yield {"primary": primaries, "guardian": [guardian(pid) for pid in primaries]}
    finally:
        for pid in primaries:
            os.kill(pid, signal.SIGTERM)
        until("all of clusterd has ended", lambda: all(map(is_gone, primaries)))


@contextlib.contextmanager
def pm2(folder, command):
    """The daemon. Its apps have a process each, in its fork mode."""
    environment = {**os.environ, "PM2_HOME": f"{folder}/pm2"}
    script = {"script": command[-1], "exec_mode": "fork", "exec_interpreter": "node" if SERVER == "node" else "none"}
    apps = [{"name": f"app{number}", "env": {"PORT": free_port()}, **script} for number in range(APPS)]
    pathlib.Path(folder, "apps.json").write_text(json.dumps(apps))
    try:
        subprocess.run(["pm2", "--silent", "start", f"{folder}/apps.json"], env=environment, check=True)
        yield {"daemon": [int(pathlib.Path(folder, "pm2/pm2.pid").read_text())]}
    finally:
        subprocess.run(["pm2", "--silent", "kill"], env=environment, check=True)


def measured(name, started):
    """Prints a line for each kind of process, and answers with the sum of their PSS."""
    with started as processes:
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
