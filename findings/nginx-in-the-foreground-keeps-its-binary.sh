#!/bin/bash
# Subject: nginx 1.22.1 of Debian 12 (package 1.22.1-9+deb12u11), USR2, which has it start its binary anew.
# Expected: USR2 to the master starts a second master beside it, as nginx's guide on upgrades says, however nginx was started.
# Seen: with `daemon off;` nothing is started while the process lives that has started nginx, as a service manager, a container's
#   init or a shell does: the log says "the changing binary signal is ignored: you should shutdown or terminate before either old
#   or new binary's process", though there is no other. As a daemon the same nginx has two masters a moment later.
# How: the same configuration, in the foreground under a shell that waits, and as a daemon; USR2 to the master; its children.
# Why: the upgrade without a lost connection that the guide describes is not to be had in the foreground: whoever supervises nginx
#   has to replace it by other means, and a signal that was sent has done nothing.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -qq -o APT::Sandbox::User=root download nginx=1.22.1-9+deb12u11 > /dev/null
dpkg -x nginx_*.deb root
cat > probe.py <<'PY'
import os, pathlib, signal, socket, subprocess, time
def until(what, condition):
    deadline = time.monotonic() + 30
    while not (seen := condition()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.05)
    return seen
def children(pid):
    text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(one) for one in text.split()]
def is_master(pid):
    return b"nginx: master" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
def masters_after_usr2(daemon):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
    folder = pathlib.Path("on" if daemon else "off").absolute(); folder.mkdir()
    (folder / "nginx.conf").write_text(
        f"daemon {'on' if daemon else 'off'}; pid {folder}/pid; error_log {folder}/log notice; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;\n"
        f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; server {{ listen 127.0.0.1:{port}; return 204; }} }}\n")
    words = [os.path.abspath("root/usr/sbin/nginx"), "-c", str(folder / "nginx.conf")]
    # A shell that waits, as the parent of whoever runs it in the foreground.
    shell = subprocess.Popen(["sh", "-c", '"$@"; :', "sh", *words], stdout=-3, stderr=-3)
    master = int(until("the pid file", lambda: (folder / "pid").is_file() and (folder / "pid").read_text().strip()))
    started = [master]
    try:
        until("a worker", lambda: children(master))
        os.kill(master, signal.SIGUSR2)
        log = lambda: (folder / "log").read_text()
        until("an answer to USR2", lambda: "changing binary" in log() and ("is ignored" in log() or any(map(is_master, children(master)))))
        time.sleep(1)
        started += [one for one in children(master) if is_master(one)]
        return len(started), "the changing binary signal is ignored" in log()
    finally:
        for pid in started:
            os.kill(pid, signal.SIGTERM)
        shell.wait(10)
for daemon, expected in ((False, (1, True)), (True, (2, False))):
    seen = masters_after_usr2(daemon)
    print(f"daemon {'on' if daemon else 'off'}: masters after USR2, and whether it was ignored: {seen}", flush=True)
    assert seen == expected, f"changed: it was {expected}"
PY
root/usr/sbin/nginx -v 2>&1
python3 probe.py && echo ok
