#!/bin/bash
# Subject: container inits: catatonit 0.1.7 (`podman run --init`), tini 0.19.0 (`docker run --init`), dumb-init 1.2.5, all Debian
#   packages; gunicorn 27.0.1 (PyPI) as the program, for which TTIN means one worker more.
# Expected: an init passes every signal on, so that `kill -s TTIN CONTAINER` adds a worker, and its child has an empty signal mask.
#   LISTEN_PID, which named the process that became the init, is wrong in the child.
# Seen: with none of the three does TTIN to the init add a worker. tini and catatonit swallow it; dumb-init turns it into STOP for
#   its child's whole process group and stops itself as well: nobody serves until a CONT comes. TTIN sent to gunicorn itself works but under
#   catatonit, which leaves TSTP, TTIN and TTOU blocked in its child, so that the signal is pending for ever and no log says so.
#   catatonit alone writes LISTEN_PID anew for its child. A missing program gives 1 (catatonit), 127 (tini), 2 (dumb-init).
# How: TTIN to the init, CONT to both, TTIN to gunicorn; its number of children and /proc/PID/status after each.
# Why: who takes commands by TTIN and TTOU has to unblock them at start, has to give its children an empty mask (a blocked signal
#   goes down the whole tree), and should offer a way that is no signal.
set -euo pipefail
dir=$(mktemp -d); init=
# shellcheck disable=SC2317
cleanup() { if [ -n "$init" ]; then kill -CONT "$init"; kill "$init"; wait "$init" || true; fi 2>/dev/null; rm -rf "$dir"; }
trap cleanup EXIT
die() { echo "changed: $*" >&2; exit 1; }
wait_for() { local end=$((SECONDS + 20)); until eval "$1"; do [ $SECONDS -lt $end ] || die "not within 20 s: $1"; sleep 0.1; done; }
grown() { for _ in {1..150}; do [ "$(pgrep -c -P "$1")" = 1 ] || return 0; sleep 0.1; done; } # a second worker, or 15 s
field() { awk -v "name=$1:" '$1 == name {print $2}' "/proc/$2/status"; }

(cd "$dir" && apt-get -qq -o APT::Sandbox::User=root download catatonit=0.1.7-1+b2 tini=0.19.0-1+b3 dumb-init=1.2.5-2 >/dev/null)
for package in "$dir"/*.deb; do dpkg -x "$package" "$dir/root"; done
python3 -m venv "$dir/venv" && "$dir/venv/bin/pip" -q --disable-pip-version-check install gunicorn==27.0.1
printf 'def app(environ, start):\n    start("200 OK", [])\n    return [b"hello"]\n' > "$dir/app.py"

try() { # expected result, then the init
    local expected=$1 master listen after mask state code=0; shift
    listen=$(sh -c 'export LISTEN_FDS=0 LISTEN_PID=$$; exec "$@"' sh "$@" sh -c '[ "$LISTEN_PID" = $$ ] && echo own || echo stale')
    "$@" "$dir/nothing-here" 2>/dev/null || code=$?
    "$@" "$dir/venv/bin/gunicorn" --chdir "$dir" --no-control-socket -b 127.0.0.1:0 -w 1 app:app > "$dir/log" 2>&1 &
    init=$!
    wait_for "grep -q 'Booting worker' '$dir/log'"
    master=$(pgrep -P "$init")
    wait_for "field SigCgt $master | grep -q '[13579bdf].....\$'" # bit 20: its handler of TTIN is there
    kill -TTIN "$init"; grown "$master"
    after="$(pgrep -c -P "$master") $(field State "$init")$(field State "$master")"
    kill -CONT "$init" "$master"; kill -TTIN "$master"; grown "$master"
    after="$after, $(pgrep -c -P "$master") $(field State "$master")"
    mask=$(field SigBlk "$master")
    kill "$init"; wait "$init" || true; init=
    state="workers and states $after; blocked ${mask: -6}; LISTEN_PID $listen; missing program $code"
    echo "$(basename "$1"): $state"
    [ "$state" = "$expected" ] || die "it was: $expected"
}
bin=$dir/root/usr/bin
try "workers and states 1 SS, 1 S; blocked 380000; LISTEN_PID own; missing program 1" "$bin/catatonit" --
try "workers and states 1 SS, 2 S; blocked 000000; LISTEN_PID stale; missing program 127" "$bin/tini" -s --
try "workers and states 1 TT, 2 S; blocked 000000; LISTEN_PID stale; missing program 2" "$bin/dumb-init" --
echo ok
