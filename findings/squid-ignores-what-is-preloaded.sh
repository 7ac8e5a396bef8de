#!/bin/bash
# Subject: squid 5.7 of Debian 12 (package 5.7-2+deb12u6), started by root, LD_PRELOAD.
# Expected: squid is an ordinary program, neither setuid nor with file capabilities, and cleans no environment: what is preloaded for it,
#   an allocator or an agent, is loaded into its kid, the process that serves, too.
# Seen: LD_PRELOAD is in the environment of the kid, and not heeded: squid changes its effective user alone before it executes
#   itself, so the kernel marks the new program as one that has gained rights (AT_SECURE in its auxiliary vector is 1, getauxval(3)),
#   and the loader ignores LD_PRELOAD without a word. The process that was started, which serves nothing, has it loaded.
# How: squid in the foreground with a library preloaded that does nothing; the auxiliary vectors, environments and maps of both. The
#   package is laid over /usr in a mount namespace, since a program that has gained rights finds no libraries elsewhere.
# Why: whoever finds LD_PRELOAD in /proc/PID/environ and no library in /proc/PID/maps looks for a program that is setuid in vain.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 1; }
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
chmod a+rx "$dir"; cd "$dir"
apt-get -qq -o APT::Sandbox::User=root download squid=5.7-2+deb12u6 squid-common=5.7-2+deb12u6 libecap3 libltdl7 libnetfilter-conntrack3 \
    libnfnetlink0 libtdb1 libdb5.3 libsasl2-2 libldap-2.5-0 > /dev/null
for package in *.deb; do dpkg -x "$package" root; done
[ ! -d root/lib ] || { cp -r root/lib root/usr/; rm -r root/lib; }
echo 'int nothing;' > nothing.c; cc -shared -o nothing.so nothing.c
mkdir log errors; chown proxy log
cat > squid.conf <<CONF
http_port 127.0.0.1:PORT
http_access allow all
pid_filename none
cache_log $dir/log/cache
access_log none
cache_effective_user proxy
coredump_dir $dir/log
visible_hostname localhost
mime_table /usr/share/squid/mime.conf
icon_directory /usr/share/squid/icons
error_directory $dir/errors
pinger_enable off
CONF
cat > probe.py <<'PY'
import os, pathlib, signal, socket, struct, subprocess, time
with socket.socket() as free:
    free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
configuration = pathlib.Path("squid.conf")
configuration.write_text(configuration.read_text().replace("PORT", str(port)))
server = subprocess.Popen(["/usr/sbin/squid", "--foreground", "-f", "squid.conf"], stdout=-3, stderr=-3,
    env=os.environ | {"LD_PRELOAD": os.path.abspath("nothing.so")})
def children():
    return [int(one) for one in pathlib.Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]
def seen_of(pid):
    proc = pathlib.Path(f"/proc/{pid}")
    words = struct.iter_unpack("QQ", (proc / "auxv").read_bytes())
    secure = dict(words)[23]
    named = b"LD_PRELOAD=" in (proc / "environ").read_bytes()
    return secure, named, "nothing.so" in (proc / "maps").read_text()
try:
    deadline = time.monotonic() + 30
    while not (kids := [pid for pid in children() if b"(squid" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]):
        assert time.monotonic() < deadline and server.poll() is None, "it has no kid"
        time.sleep(0.1)
    for what, pid, expected in (("started", server.pid, (0, True, True)), ("kid", kids[0], (1, True, False))):
        seen = seen_of(pid)
        print(f"{what}: AT_SECURE, LD_PRELOAD in its environment, library loaded: {seen}", flush=True)
        assert seen == expected, f"changed: it was {expected}"
finally:
    if server.poll() is None:
        for pid in [*children(), server.pid]:
            os.kill(pid, signal.SIGKILL)
        server.wait()
PY
unshare --mount --propagation private sh -euc '
    mount -t overlay overlay -o "lowerdir=$PWD/root/usr:/usr" /usr
    /usr/sbin/squid -v | head -1
    python3 probe.py' && echo ok
