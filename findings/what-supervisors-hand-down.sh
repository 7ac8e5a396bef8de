#!/bin/bash
# Subject: what a program has from what started it: Supervisor 4.3.0, uv 0.13.9 (`uv run`) and circus 0.19.0 of PyPI, monit 5.33.0 and runit 2.1.2
#   of Debian 12.
# Expected: a supervisor starts its program as a shell would: no signal is ignored, and limits are the supervisor's own.
# Seen: under supervisord PIPE and XFSZ are ignored, as in Python itself, which circus and runit do not hand down: `yes | head` is an error
#   message, and its status is 1 instead of 141. Under `monit -I` HUP is ignored, so HUP does not end a program that says nothing of
#   it. `uv run` raises the soft limit of open files to the
#   hard one, as Node does, and so for all that it starts: a program that uses select(2) no longer gets EMFILE at 1,024 but a descriptor that
#   select cannot take.
# How: each starts a script that writes down SigIgn, SigBlk, its limit and a variable, and then tries `yes | head`, HUP to a shell of
#   its own and, as Python, 1,100 open files in select. All with a soft limit of 1,024 and a hard one of 4,096.
# Why: the same program in a container, in a shell and under a supervisor is not the same. Whoever starts programs has to set all signals to
#   their default; whoever writes one should do so where it matters.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -qq -o APT::Sandbox::User=root download monit=1:5.33.0-1 runit=2.1.2-54 > /dev/null
for package in *.deb; do dpkg -x "$package" root; done
python3 -m venv venv
venv/bin/pip -q --disable-pip-version-check install supervisor==4.3.0 uv==0.13.9 circus==0.19.0 setuptools==75.8.0
cat > look.sh <<'SH'
#!/bin/bash
{
    echo "pid $$"
    awk '/^Sig(Blk|Ign)/ {print $1, $2}' /proc/self/status
    echo "limit $(ulimit -Sn)"
    echo "variable ${SOME_SETTING:-unset}"
    yes 2> /dev/null | head -1 > /dev/null; echo "yes ${PIPESTATUS[0]}"
    bash -c 'kill -HUP $$; exit 7'; echo "HUP $?"
    python3 - <<'PY'
import os, select
try:
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    print("files", len(files), end="; ")
    select.select(files, [], [], 0); print("select ok")
except (OSError, ValueError) as error:
    print(type(error).__name__, error)
PY
    echo end
} > "$1" 2> /dev/null
exec sleep 60
SH
chmod +x look.sh
cat > probe.py <<'PY'
import os, resource, signal, subprocess, time
look = os.path.abspath("look.sh")
def write(path, text, mode=0o600):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
seen_in = {name: os.path.abspath(f"seen-{name}") for name in ("nothing", "runsv", "circusd", "supervisord", "monit", "uv")}
write("supervisord.ini", f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={os.getcwd()}/pid\n[program:app]\ncommand={look} {seen_in['supervisord']}\n")
write("circus.ini", f"[circus]\nendpoint=ipc://{os.getcwd()}/c1\npubsub_endpoint=ipc://{os.getcwd()}/c2\n[watcher:app]\ncmd={look} {seen_in['circusd']}\ncopy_env=True\n")
os.mkdir("service"); write("service/run", f"#!/bin/sh\nexec {look} {seen_in['runsv']}\n", 0o755)
state = "".join(f"set {kind}file {os.getcwd()}/monit.{kind}\n" for kind in ("pid", "state", "id"))
write("monitrc", f'set daemon 5\n{state}check process app matching "{look} {seen_in["monit"]}"\n  start program = "{look} {seen_in["monit"]}"\n')
commands = {
    "nothing": [look, seen_in["nothing"]],
    "runsv": ["root/usr/bin/runsv", "service"],
    "circusd": ["venv/bin/circusd", "circus.ini"],
    "supervisord": ["venv/bin/supervisord", "-c", "supervisord.ini"],
    "monit": ["root/usr/bin/monit", "-I", "-c", "monitrc"],
    "uv": ["venv/bin/uv", "run", "--no-project", "--offline", look, seen_in["uv"]],
}
def numbers(mask):
    """Signals of a mask, without the two of the C library, which its posix_spawn leaves ignored."""
    return [signal.Signals(number).name for number in range(1, 65) if int(mask, 16) >> number - 1 & 1 and number not in (32, 33)]
clean = {"SigBlk:": [], "SigIgn:": [], "limit": "1024", "variable": "kept", "yes": "141", "HUP": "129", "OSError": "[Errno 24] Too many open files: '/dev/null'"}
expected = {
    "nothing": clean, "runsv": clean, "circusd": clean,
    "supervisord": clean | {"SigIgn:": ["SIGPIPE", "SIGXFSZ"], "yes": "1"},
    "monit": clean | {"SigIgn:": ["SIGHUP"], "HUP": "7"},
    "uv": {key: value for key, value in clean.items() if key != "OSError"} | {"limit": "4096", "files": "1100; ValueError filedescriptor out of range in select()"},
}
def limits():
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))
for name, command in commands.items():
    process = subprocess.Popen(command, env=os.environ | {"SOME_SETTING": "kept"}, preexec_fn=limits, stdin=-3, stdout=-3, stderr=-3, start_new_session=True)
    started = process.pid
    try:
        deadline = time.monotonic() + 30
        while not (os.path.exists(seen_in[name]) and open(seen_in[name]).read().endswith("end\n")):
            assert time.monotonic() < deadline, f"{name}: it has not started the program within 30 s"
            time.sleep(0.1)
        seen = dict(line.split(" ", 1) for line in open(seen_in[name]).read().splitlines()[:-1])
        started = seen.pop("pid")
        for mask in ("SigBlk:", "SigIgn:"):
            seen[mask] = numbers(seen[mask])
        print(f"{name}:", *(f"{key} {value};" for key, value in seen.items()), flush=True)
        assert seen == expected[name], f"changed: it was {expected[name]}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        try:
            os.kill(int(started), signal.SIGKILL)
        except OSError:
            pass
PY
python3 probe.py && echo ok
