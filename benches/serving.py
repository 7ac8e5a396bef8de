#!/usr/bin/env python3
"""Which functions serve connections, as a linker script that puts them next to each other.

    CARGO_PROFILE_RELEASE_STRIP=none cargo xtask dist archive
    benches/serving.py target/dist/clusterd target/static/clusterd.map xtask/dist/serving.ld     (needs perf(1), and root for it)

A page of code that is touched brings the fifteen around it into memory. Functions that serve are a thirtieth of the program; scattered
over all of it, they would have two thirds of it in memory. Those that run often are found by samples, and those that hardly ever do by
the page faults that they cause, of which only those are seen that the others have not brought along. So what is in the script
stays there as long as the program has it, and both commands are to be repeated until hardly any is new: once or twice after a
small change, five times without a script.

Names are written without the numbers of compilers and versions.

CLUSTERD_BENCH_SECONDS (40).
"""

import bisect
import collections
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

from background import server
from programs import end, free_port, until

SECONDS = float(os.environ.get("CLUSTERD_BENCH_SECONDS", 40))
CLIENTS = 16
SAMPLES = ["-e", "cpu-clock:u", "-F", "20000"]
FAULTS = ["-e", "page-faults:u", "-c", "1", "-d"]


class Map:
    """What the linker has put where: sections of one function each, and of the C library those of its objects."""

    LINE = re.compile(r"^ *([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+) +[0-9]+ +(.*):[(]([.]text[^)]*)[)]$", re.M)

    def __init__(self, file, program):
        placed = self.LINE.findall(pathlib.Path(file).read_text())
        known = [(int(begin, 16), int(size, 16), pattern(*where)) for begin, size, *where in placed]
        self.known = sorted(one for one in known if one[1])
        # Of several that are the same the linker has kept one, and the next time it may keep another.
        said = subprocess.run(["nm", "--defined-only", program], check=True, capture_output=True, text=True).stdout
        self.names = collections.defaultdict(set)
        for address, _, name in map(str.split, said.splitlines()):
            if name.startswith("_R"):
                self.names[int(address, 16)].add(pattern("", f".text.{name}"))
        if not self.names:
            sys.exit(f"{program} has no symbols")

    def at(self, address):
        place = bisect.bisect_right(self.known, (address + 1,)) - 1
        begin, size, section = self.known[max(place, 0)]
        return {section} | self.names[begin] if begin <= address < begin + size else set()

    def all(self):
        return set().union(*self.names.values(), (section for _, _, section in self.known))


def pattern(file, section):
    """The section as a linker script has it, without what differs between compilers and versions."""
    if archived := re.search(r"([^/]*[.]a)[(]([^)]*)[)]$", file):
        return f"*{archived[1]}:{archived[2]}({section})"
    # The number of each copy, and of each crate.
    return f"*({re.sub('Cs[0-9A-Za-z]*_', 'Cs*_', re.sub('[.](llvm[.])?[0-9]+$', '*', section))})"


def ask(port, over):
    while not over.is_set():
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            while client.recv(4096):
                pass


def begin_of(pid, program):
    with open(f"/proc/{pid}/maps") as maps:
        return min(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(program))


def observed(program, folder):
    """Addresses in the program's file, sampled and touched first."""
    port = free_port()
    command = [program, "--port", str(port), "--workers", "4", "--", *server(folder)]
    environment = {**os.environ, "CLUSTERD_HOME": folder}
    primary = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    over, clients = threading.Event(), []
    try:
        until("it serves", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        records = [(f"{folder}/samples", SAMPLES), (f"{folder}/faults", FAULTS)]
        begin, duration = begin_of(primary.pid, program), ["--", "sleep", str(SECONDS)]
        perfs = [
            subprocess.Popen(["perf", "record", "-q", "-p", str(primary.pid), "-o", file, *what, *duration])
            for file, what in records
        ]
        # What the start has brought into memory is given back meanwhile.
        time.sleep(4)
        clients = [threading.Thread(target=ask, args=(port, over)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
            time.sleep(0.5)
        if any([perf.wait() for perf in perfs]):
            sys.exit("perf does not record")
    finally:
        over.set()
        for client in clients:
            client.join()
        end(primary)
    for (file, _), field in zip(records, ["ip", "addr"]):
        said = subprocess.run(["perf", "script", "-i", file, "-F", field], check=True, capture_output=True, text=True)
        yield from {int(word, 16) - begin for word in said.stdout.split()}


def main():
    program, placed, script = os.path.realpath(sys.argv[1]), Map(*sys.argv[2:0:-1]), pathlib.Path(sys.argv[3])
    before = set(re.findall(r"^([*].*)$", script.read_text(), re.M)) if script.exists() else set()
    with tempfile.TemporaryDirectory() as folder:
        found = set().union(*map(placed.at, observed(program, folder)))
    sections = found | before & placed.all()
    script.write_text(
        "/* Functions that serve connections, next to each other. benches/serving.py has written this, and says why. */\n"
        "SECTIONS { .text.serving : {\n" + "".join(f"{one}\n" for one in sorted(sections)) + "} } INSERT BEFORE .text;\n"
    )
    print(f"{len(sections)} sections, {len(found - before)} of them new; {len(before - sections)} are gone")


main()
