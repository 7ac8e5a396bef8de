#!/bin/bash
# Subject: what reads a program's log from a pipe, all of Debian 12: svlogd of runit 2.1.2-54, s6-log of s6 2.11.3.2-1, multilog of
#   daemontools 0.76-8.1, rotatelogs of apache2-utils 2.4.71, cronolog 1.6.2+rpk-3.
# Expected: at the end of its input each has written what it has read, and ends with 0; TERM lets it finish the line that has begun.
# Seen: a last line without a newline is kept as it is by rotatelogs and cronolog, is given its newline by multilog, and is dropped without
#   a word by svlogd and s6-log. After TERM the first three here wait for the end of a line that has begun; svlogd reads that end, too,
#   and then drops the whole line, which the other two write. HUP, by which svlogd rotates or reads its settings, ends s6-log, even with
#   -p, which has it ignore TERM. cronolog ends with 3 at every regular end of its input. A JSON line of 20,000 bytes is
#   three lines by s6-log (8,192 bytes each, unless -l says otherwise).
# How: each gets lines, the last without a newline, and the end of its input; then TERM in the middle of a line, whose rest follows; HUP.
# Why: the last line without a newline is often the one that says why a program ended (a panic's, a prompt's, `printf`'s). Under svlogd and
#   s6-log write a newline before the end; a writer of logs is stopped by the end of its input, not by a signal.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -qq -o APT::Sandbox::User=root download runit=2.1.2-54 s6=2.11.3.2-1 libs6-2.11=2.11.3.2-1 libskarnet2.13 libexecline2.9 \
    daemontools=1:0.76-8.1 apache2-utils=2.4.71-1~deb12u1 libapr1 libaprutil1 cronolog=1.6.2+rpk-3 > /dev/null
for package in *.deb; do dpkg -x "$package" root; echo "${package%_*}"; done | tr '\n' ' '; echo
cat > probe.py <<'PY'
import glob, json, os, signal, subprocess, sys, time
libraries = ":".join(os.path.abspath(f"root/{folder}/x86_64-linux-gnu") for folder in ("usr/lib", "lib"))
commands = {"svlogd": ["svlogd", "DIR"], "s6-log": ["s6-log", "./DIR"], "s6-log -p": ["s6-log", "-p", "./DIR"], "multilog": ["multilog", "./DIR"],
    "rotatelogs": ["rotatelogs", "DIR/log", "86400"], "cronolog": ["cronolog", "DIR/log"]}
started = 0
def logged(name, pieces, number=None):
    """What it has written, and how it has ended, if these come one after the other, and the signal after the first."""
    global started
    started += 1
    folder = f"logs{started}"; os.mkdir(folder)
    program, *options = [word.replace("DIR", folder) for word in commands[name]]
    writer = subprocess.Popen([f"root/usr/bin/{program}", *options], stdin=subprocess.PIPE, env=os.environ | {"LD_LIBRARY_PATH": libraries})
    try:
        for turn, piece in enumerate(pieces):
            writer.stdin.write(piece); writer.stdin.flush(); time.sleep(0.5)
            if turn == 0 and number:
                writer.send_signal(number); time.sleep(0.5)
    except BrokenPipeError:
        pass
    try:
        writer.stdin.close()
    except BrokenPipeError:
        pass
    code = writer.wait(10)
    files = [path for path in glob.glob(f"{folder}/*") if os.path.basename(path) not in ("lock", "state", "status")]
    return b"".join(open(path, "rb").read() for path in files).decode(), code
def check(what, seen, expected):
    print(f"{what}: {seen}", flush=True)
    assert seen == expected, f"changed: it was {expected}"
whole, without, nothing = "first\nlast\n", "first\nlast", "first\n"
for name, expected in {"svlogd": (nothing, 0), "s6-log": (nothing, 0), "multilog": (whole, 0), "rotatelogs": (without, 0), "cronolog": (without, 3)}.items():
    check(f"{name}: the last line has no newline, end of input", logged(name, [b"first\nlast"]), expected)
for name, expected in {"svlogd": (nothing, 0), "s6-log": (whole, 0), "multilog": (whole, 0)}.items():
    check(f"{name}: TERM in the middle of a line, whose rest follows", logged(name, [b"first\nla", b"st\n", b"late\n"], signal.SIGTERM), expected)
for name, number, expected in (("svlogd", signal.SIGHUP, (whole, 0)), ("s6-log", signal.SIGHUP, (nothing, 0)),
        ("s6-log -p", signal.SIGTERM, (whole, 0)), ("s6-log -p", signal.SIGHUP, (nothing, 0))):
    check(f"{name}: {number.name} between lines", logged(name, [b"first\n", b"last\n"], number), expected)
line = json.dumps({"message": "x" * 20000}).encode() + b"\n"
for name, expected in {"svlogd": 1, "s6-log": 3, "multilog": 1, "rotatelogs": 1, "cronolog": 1}.items():
    check(f"{name}: one line of {len(line)} bytes is lines", logged(name, [line])[0].count("\n"), expected)
PY
python3 probe.py && echo ok
