#!/bin/bash
# Subject: Prometheus' text format 0.0.4, as promtool and the server of one package read it; seen with Prometheus 2.42 (Debian 12).
# Expected: what `promtool check metrics` accepts, the server scrapes; and a timestamp may lie before 1970, for the format calls
#   it an int64 of milliseconds since the epoch.
# Seen: promtool has nothing to say, and the server refuses the whole page: `expected timestamp or new record, got "INVALID"`.
# How: two pages with one gauge each, which differ in the sign of the timestamp, are scraped from a file server.
# Why: promtool reads with a parser of its own (expfmt), and the server's knows no sign there.
set -euo pipefail

folder=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
changed() { echo "changed: $*"; exit 1; }

(cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download prometheus=2.42.0+ds-5+deb12u1 >/dev/null && dpkg-deb -x ./*.deb .)
PATH=$folder/usr/bin:$PATH
mkdir "$folder/before" "$folder/after"
printf '# HELP a_seconds A.\n# TYPE a_seconds gauge\na_seconds 1 -5\n' >"$folder/before/metrics"
printf '# HELP a_seconds A.\n# TYPE a_seconds gauge\na_seconds 1 5\n' >"$folder/after/metrics"
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

{
    echo 'global: {scrape_interval: 1s, scrape_timeout: 1s}'
    echo 'scrape_configs:'
} >"$folder/prometheus.yml"
for page in before after; do
    promtool check metrics <"$folder/$page/metrics" || changed "promtool objects to $page"
    port=$(free)
    python3 -m http.server --bind 127.0.0.1 --directory "$folder/$page" "$port" >/dev/null 2>&1 &
    pids+=($!)
    echo "- {job_name: $page, static_configs: [{targets: ['127.0.0.1:$port']}]}" >>"$folder/prometheus.yml"
done
echo "promtool: both pages are fine"

port=$(free)
prometheus --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/data" \
    --web.listen-address="127.0.0.1:$port" 2>/dev/null &
pids+=($!)
health() {
    curl -s "http://127.0.0.1:$port/api/v1/targets" | python3 -c '
import json, sys
for target in json.load(sys.stdin)["data"]["activeTargets"]:
    if target["labels"]["job"] == sys.argv[1] and target["health"] != "unknown":
        print(target["health"], target["lastError"])' "$1" 2>/dev/null || true
}
for page in before after; do
    for _ in $(seq 100); do
        [ -n "$(health $page)" ] && break
        sleep 0.2
    done
    echo "the server, $page 1970: $(health $page)"
done
[[ $(health before) == down* ]] || changed "the server takes the page"
[[ $(health after) == up* ]] || changed "the server refuses the other page, too"
echo ok
