"""Holds a library to what it promises of its dependencies: `cargo metadata | dependencies.py RUST`.

None that it is built with may want a later Rust, and six are direct ones at most. What only tests need does not count.
"""

import json
import sys

MOST = 6


def version(text):
    """The first two numbers: what a rust-version promises."""
    return [int(part) for part in text.split(".")[:2]]


def built_with(metadata):
    """Every package that the root is built with, but for itself."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, left = set(), [root]
    while left:
        node = left.pop()
        if node not in seen:
            seen.add(node)
            for dependency in nodes[node]["deps"]:
                if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"]):
                    left.append(dependency["pkg"])
    return [package for package in metadata["packages"] if package["id"] in seen - {root}]


def main():
    rust, metadata = sys.argv[1], json.load(sys.stdin)
    root = next(p for p in metadata["packages"] if p["id"] == metadata["resolve"]["root"])
    direct = sorted({d["name"] for d in root["dependencies"] if d["kind"] is None})
    packages = built_with(metadata)
    print(f"{root['name']}: built with {len(packages)} packages; direct: {', '.join(direct)}")
    newer = [p for p in packages if p["rust_version"] and version(p["rust_version"]) > version(rust)]
    for package in newer:
        print(f"{package['name']} {package['version']} wants Rust {package['rust_version']}, not {rust}")
    if len(direct) > MOST:
        print(f"{len(direct)} direct dependencies; at most {MOST} are allowed")
    sys.exit(bool(newer) or len(direct) > MOST)


main()
