#!/bin/bash
# Subject: the exit status after TERM: PgBouncer 1.18.0 and sslh 1.20 (`sslh-select` and `sslh`, one package), all of Debian 12.
# Expected: a daemon in the foreground that is asked to stop ends with 0, or dies of the signal; two programs of one package agree.
# Seen: PgBouncer ends with 1 ("got SIGTERM, fast exit" in its log); with INT, its graceful stop, it ends with 0, and of QUIT it dies.
#   sslh-select ends with 15, the number of the signal, where a shell would say 143; sslh, the same program with a process for each
#   connection, ends with 0. Both die of INT and QUIT.
# How: each is started, accepts a connection that is closed again, gets the signal, and is waited for.
# Why: who looks at exit codes counts a failure for each planned stop, as TERM is what container runtimes and systemd send unless
#   told otherwise. Debian's own unit for PgBouncer says KillSignal=SIGINT; for sslh-select the 15 has to be listed as good.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -qq -o APT::Sandbox::User=root download pgbouncer=1.18.0-1+deb12u1 sslh=1.20-1+deb12u1 libc-ares2 libconfig9 libpcre3 \
    libevent-2.1-7 libcap2 > /dev/null
for package in *.deb; do dpkg -x "$package" root; done
cat > pgbouncer.ini <<'INI'
[databases]
app = host=127.0.0.1
[pgbouncer]
listen_addr = 127.0.0.1
unix_socket_dir =
auth_type = any
user = nobody
INI
chmod -R a+rX "$dir"
cat > probe.py <<'PY'
import os, signal, socket, subprocess, time
environment = os.environ | {"LD_LIBRARY_PATH": ":".join(os.path.abspath(f"root/{folder}/x86_64-linux-gnu") for folder in ("usr/lib", "lib"))}
def ends_with(command, name):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
    words = [word.format(port=port) for word in command]
    if words[0] == "pgbouncer":
        with open("pgbouncer.ini") as template, open("run.ini", "w") as own:
            own.write(f"{template.read()}listen_port = {port}\n")
    server = subprocess.Popen([f"root/usr/sbin/{words[0]}", *words[1:]], env=environment, stdout=-3, stderr=-3)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close(); break
            except OSError:
                assert time.monotonic() < deadline and server.poll() is None, "it does not listen"
                time.sleep(0.1)
        time.sleep(0.5)
        server.send_signal(name)
        return server.wait(10)
    finally:
        server.kill()
sslh = ["-f", "-u", "nobody", "-p", "127.0.0.1:{port}", "--http", "127.0.0.1:9", "-P", "/dev/null"]
for command, expected in ((["pgbouncer", "-q", "run.ini"], (1, 0, -3)), (["sslh-select", *sslh], (15, -2, -3)), (["sslh", *sslh], (0, -2, -3))):
    seen = tuple(ends_with(command, name) for name in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
    print(f"{command[0]}: TERM, INT, QUIT end it with {seen}", flush=True)
    assert seen == expected, f"changed: it was {expected}"
PY
LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu:$dir/root/lib/x86_64-linux-gnu root/usr/sbin/pgbouncer --version | head -1
python3 probe.py && echo ok
