"""Twenty apps in the background, of clusterd and of PM2: for benches of what they cost, and of commands to them.

CLUSTERD_BENCH_APPS (20), CLUSTERD_BENCH_WORKERS (1, of each app of clusterd), CLUSTERD_BENCH_SERVER (c, or node).
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess

from programs import free_port, until

APPS = int(os.environ.get("CLUSTERD_BENCH_APPS", 20))
WORKERS = os.environ.get("CLUSTERD_BENCH_WORKERS", "1")
SERVER = os.environ.get("CLUSTERD_BENCH_SERVER", "c")
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
    """The environment of commands, and the processes: primaries and guardians."""
    environment = {**os.environ, "CLUSTERD_HOME": f"{folder}/clusterd"}
    primaries = []
    try:
        for number in range(APPS):
            options = ["--name", f"app{number}", "--port", str(free_port()), "--workers", WORKERS]
            words = [program, "start", *options, "--", *command]
            said = subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout
            primaries.append(int(re.search(r"\(pid (\d+)\)", said)[1]))
        yield environment, {"primary": primaries, "guardian": [guardian(pid) for pid in primaries]}
    finally:
        for pid in primaries:
            os.kill(pid, signal.SIGTERM)
        until("all of clusterd has ended", lambda: all(map(is_gone, primaries)))


@contextlib.contextmanager
def pm2(folder, command):
    """The environment of commands, and the daemon. Its apps have a process each, in its fork mode."""
    environment = {**os.environ, "PM2_HOME": f"{folder}/pm2"}
    script = {"script": command[-1], "exec_mode": "fork", "exec_interpreter": "node" if SERVER == "node" else "none"}
    apps = [{"name": f"app{number}", "env": {"PORT": free_port()}, **script} for number in range(APPS)]
    pathlib.Path(folder, "apps.json").write_text(json.dumps(apps))
    try:
        subprocess.run(["pm2", "--silent", "start", f"{folder}/apps.json"], env=environment, check=True)
        yield environment, {"daemon": [int(pathlib.Path(folder, "pm2/pm2.pid").read_text())]}
    finally:
        subprocess.run(["pm2", "--silent", "kill"], env=environment, check=True)
