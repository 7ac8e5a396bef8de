#!/usr/bin/env bash
# cargo-cyclonedx 0.5.9 (crates.io) lists, as a required part of a binary, a dependency that only tests turn on: an optional one whose
# feature a dev-dependency of the package on itself has. `cargo build` does not even compile it, and `cargo tree -e normal` does not
# list it. The packed crate, from which cargo takes that dev-dependency away, has the right list.
#
# It also lists procedural macros and all that they need with --no-build-deps, with scope "required": they run in the compiler, and
# are in no binary.
#
# Seen with cargo 1.95.0 and cargo-cyclonedx 0.5.9:
#   cargo tree:                 app, serde_derive and what it needs; no itoa
#   in the workspace:           itoa: required
#   from the packed crate:      no itoa
#   with --no-build-deps:       syn: required
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cargo install --quiet --debug --locked cargo-cyclonedx@0.5.9 --root "$folder/tools"
export PATH=$folder/tools/bin:$PATH

mkdir -p app/src
cat > app/Cargo.toml <<'TOML'
[package]
name = "app"
version = "0.1.0"
edition = "2021"
license = "MIT"
description = "shows what is listed"

[dependencies]
itoa = { version = "=1.0.18", optional = true }
serde_derive = "=1.0.228"

[features]
internal = ["dep:itoa"]

[dev-dependencies]
app = { path = ".", features = ["internal"] }
TOML
echo 'fn main() {}' > app/src/main.rs
echo '' > app/src/lib.rs

# The scope of each of these that is listed.
listed() {
    python3 - "$1" "$2" <<'PYTHON'
import json, sys
components = json.load(open(sys.argv[1]))["components"]
scopes = [component["scope"] for component in components if component["name"] == sys.argv[2]]
print(scopes[0] if scopes else "not listed")
PYTHON
}
bill() {
    (cd "$1" && cargo cyclonedx --quiet --format json --no-build-deps --override-filename bill >/dev/null 2>&1)
}
expect() {
    printf '%-40s %s\n' "$1" "$2"
    [ "$2" = "$3" ] || { echo "changed: it was $3"; exit 1; }
}

(cd app && cargo generate-lockfile --quiet)
in_tree=$(cd app && cargo tree --quiet -e normal | grep -c itoa || true)
expect "itoa in cargo tree -e normal" "$in_tree" 0
bill app
expect "itoa in the bill of the workspace" "$(listed app/bill.json itoa)" required
expect "syn with --no-build-deps" "$(listed app/bill.json syn)" required
rm app/bill.json
(cd app && cargo package --quiet --allow-dirty --no-verify 2>/dev/null)
tar -xzf app/target/package/app-0.1.0.crate
bill app-0.1.0
expect "itoa in the bill of the packed crate" "$(listed app-0.1.0/bill.json itoa)" "not listed"
echo ok
