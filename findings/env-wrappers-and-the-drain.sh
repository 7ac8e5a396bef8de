#!/bin/bash
# Subject: what is put before a server's command to give it variables or to start it, from npm and PyPI: cross-env 10.1.0, dotenv-cli 11.0.0, env-cmd 11.0.0,
#   @dotenvx/dotenvx 2.38.2, concurrently 9.2.5, npm-run-all2 8.0.4, nodemon 3.1.14, yarn 1.22.22, honcho 2.0.0 (`honcho run`).
# Expected: TERM to it reaches the server, it waits until the server has drained, and ends as the server did.
# Seen: only cross-env and dotenv-cli do so. env-cmd passes TERM on and ends at once (143), while the server drains without it. dotenvx waits
#   for 6 s, kills the server, and ends with 1. concurrently waits, and ends with 1 although the server has ended with 0. nodemon
#   sends INT, too, twice, and ends with 143. run-s, yarn and honcho end at once, and the server has heard nothing, and serves on.
# How: a server that after TERM needs 8 s, and then ends with 0; TERM to the wrapper; what the server has got, when the wrapper has
#   ended and how, and whether the server has come to its end, or serves on.
# Why: who waits for the process that was started (systemd, a container runtime, a supervisor) kills what is left as soon as the wrapper is
#   gone: a drain is 0 or 6 s long, whatever it is set to. Send the signal to the whole group, or `exec` the server.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
echo '{"name":"app","version":"1.0.0","scripts":{"start":"node server.js"}}' > package.json
npm install --silent --no-fund --no-audit --ignore-scripts cross-env@10.1.0 dotenv-cli@11.0.0 env-cmd@11.0.0 @dotenvx/dotenvx@2.38.2 \
    concurrently@9.2.5 npm-run-all2@8.0.4 nodemon@3.1.14 yarn@1.22.22 > /dev/null
python3 -m venv venv && venv/bin/pip -q --disable-pip-version-check install honcho==2.0.0
echo "node $(node --version), npm $(npm --version), /bin/sh is $(basename "$(readlink -f /bin/sh)")"
echo 'SOME=thing' > .env; echo 'web: node server.js' > Procfile
cat > server.js <<'JS'
const { appendFileSync } = require('node:fs');
const say = (line) => appendFileSync(process.env.SAID, line + '\n');
const server = require('node:http').createServer((request, response) => response.end('here'));
server.listen(0, '127.0.0.1', () => say(`listens ${process.pid}`));
for (const name of ['SIGINT', 'SIGHUP', 'SIGQUIT']) process.on(name, () => say(name));
process.once('SIGTERM', () => { say('SIGTERM'); setTimeout(() => { say('drained'); process.exit(0); }, 8000); });
JS
cat > probe.py <<'PY'
import os, signal, subprocess, time
bin = os.path.abspath("node_modules/.bin")
server = ["node", "server.js"]
wrappers = {
    "cross-env": ([f"{bin}/cross-env", "SOME=thing", *server], (0, 8, ["SIGTERM", "drained"], False)),
    "dotenv-cli": ([f"{bin}/dotenv", "-e", ".env", "--", *server], (0, 8, ["SIGTERM", "drained"], False)),
    "env-cmd": ([f"{bin}/env-cmd", "-f", ".env", *server], (-15, 0, ["SIGTERM", "drained"], True)),
    "dotenvx": ([f"{bin}/dotenvx", "run", "-q", "--", *server], (1, 6, ["SIGTERM"], False)),
    "concurrently": ([f"{bin}/concurrently", "node server.js"], (1, 8, ["SIGTERM", "drained"], False)),
    "nodemon": ([f"{bin}/nodemon", "-q", "server.js"], (143, 8, ["SIGTERM", "SIGINT", "SIGINT", "drained"], False)),
    "run-s": ([f"{bin}/run-s", "start"], (-15, 0, [], True)),
    "yarn": ([f"{bin}/yarn", "-s", "start"], (1, 0, [], True)),
    "honcho run": (["venv/bin/honcho", "run", *server], (-15, 0, [], True)),
}
def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
started, said = {}, {}
def lines(name):
    return open(f"said-{name}").read().splitlines()
try:
    for name, (command, _) in wrappers.items():
        open(f"said-{name}", "w").close()
        started[name] = subprocess.Popen(command, env=os.environ | {"SAID": os.path.abspath(f"said-{name}")}, stdin=-3, stdout=-3, stderr=-3, start_new_session=True)
    deadline = time.monotonic() + 30
    while not all(any(line.startswith("listens") for line in lines(name)) for name in wrappers):
        assert time.monotonic() < deadline, "not all listen within 30 s"
        time.sleep(0.1)
    time.sleep(1)
    begun, ended = time.monotonic(), {}
    for wrapper in started.values():
        wrapper.terminate()
    while len(ended) < len(started) and time.monotonic() < begun + 20:
        for name, wrapper in started.items():
            if name not in ended and wrapper.poll() is not None:
                pid = int(lines(name)[0].split()[1])
                ended[name] = (wrapper.returncode, time.monotonic() - begun, alive(pid))
        time.sleep(0.05)
    time.sleep(max(0, begun + 11 - time.monotonic()))
    for name, (_, expected) in wrappers.items():
        code, after, left = ended[name]
        pid = int(lines(name)[0].split()[1])
        seen = (code, int(after), lines(name)[1:], left)
        print(f"{name}: ended with {code} after {int(after)} s; the server has got {seen[2]}"
            + ("; it lives when the wrapper is gone" if left else "") + (", and 11 s later" if alive(pid) else ""), flush=True)
        assert seen == expected, f"changed: it was {expected}"
        assert alive(pid) == (not seen[2]), "changed: whether it serves on"
finally:
    for name, wrapper in started.items():
        try:
            os.killpg(wrapper.pid, signal.SIGKILL)
        except OSError:
            pass
        for line in lines(name)[:1]:
            if alive(int(line.split()[1])):
                os.kill(int(line.split()[1]), signal.SIGKILL)
PY
python3 probe.py && echo ok
