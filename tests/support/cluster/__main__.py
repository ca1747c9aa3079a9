"""A real one-node Kubernetes for the tests: `python -m tests.support.cluster up|down|status|build|load-image FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.support.cluster.cache import MODULES, ClusterError, cache_folder, go_binaries
from tests.support.cluster.components import Components
from tests.support.cluster.node import Node


def main() -> int:
    """Run one command; 1 where the node is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.cluster", description=__doc__)
    parser.add_argument("--state", type=Path, default=cache_folder() / "node", help="folder of the node's state")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the node, or what of it does not run; prints the kubeconfig's path")
    commands.add_parser("down", help="stop the node, and leave the machine as it was")
    commands.add_parser("status", help="which processes run, and whether the node is Ready; 1 if it is not")
    commands.add_parser("build", help="build what the cache lacks of the node's programs, and start nothing")
    load = commands.add_parser("load-image", help="put an image archive into the node")
    load.add_argument("archive", type=Path)
    options = parser.parse_args()
    node = Node(options.state.resolve(), lambda line: print(line, file=sys.stderr, flush=True))
    try:
        if options.command == "up":
            kubeconfig = node.up()
            Components(node, node.authority).install()
            print(kubeconfig)
        elif options.command == "down":
            node.down()
        elif options.command == "build":
            for module in sorted(path.parent for path in MODULES.glob("*/go.mod") if "\ntool " in path.read_text()):
                go_binaries(module.name, node.say)
        elif options.command == "load-image":
            node.load_image(options.archive)
        else:
            status = node.status()
            print(json.dumps(status, indent=2))
            return 0 if status["ready"] else 1
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
