"""A node on this machine: `python -m tools.node up|down|status|env|load [--name NAME] [FILE]`, as root.

    eval "$(python -m tools.node env)"      # KUBECONFIG, and kubectl and helm on the PATH

`status` exits 0 when it is up and 3 when it is not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools import binaries, commands, paths
from tools.node.machine import MachineError
from tools.node.node import Node, NodeError, remove
from tools.progress import say


def _up(folder: Path) -> int:
    node = Node.create(folder)
    say(f"node {folder.name} is up at {node.url}; its logs are in {folder}")
    return 0


def _down(folder: Path) -> int:
    remove(folder)
    say(f"node {folder.name} is gone")
    return 0


def _load(folder: Path, archive: Path | None) -> int:
    node = Node.open(folder)
    if node is None or archive is None:
        say("load needs a node that is up, and an image archive")
        return commands.NOT_RUNNING
    print("\n".join(node.load(archive)))
    return 0


def main() -> int:
    """Run one command on a named node."""
    parser = argparse.ArgumentParser(prog="python -m tools.node", description="A real Kubernetes node on this machine.")
    parser.add_argument("command", choices=["up", "down", "status", "env", "load"])
    parser.add_argument("archive", nargs="?", type=Path, help="load: the image archive")
    parser.add_argument("--name", default="default", help="which node (default: %(default)s)")
    options = parser.parse_args()
    folder = paths.cache() / "nodes" / options.name
    try:
        if options.command == "load":
            return _load(folder, options.archive)
        if options.command in {"up", "down"}:
            return {"up": _up, "down": _down}[options.command](folder)
        node = Node.open(folder)
        if options.command == "status":
            return commands.status(node)
        return commands.env("node", folder, node, "kubectl", "helm")
    except (NodeError, MachineError, binaries.BinaryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
