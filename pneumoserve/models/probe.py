"""Probes of the models. Ready: every model has a worker that is READY. Alive: Java answers HTTP at all.

`/ping` says Healthy before the workers have loaded, and something else while one is started again, so its word counts
for neither; that there is an answer is what a frozen Java cannot give.

Without TorchServe a worker is ready that greets who connects to its socket. Alive are they where all do: one that has
died is soon started again, one that is frozen is not.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
import time
from pathlib import Path

from pneumoserve.models.exchange import GREETING, find_sockets
from pneumoserve.names import DETECTOR, TYPER

_TIMEOUT_SECONDS = 2.0
# Longer than any pause that a busy node or a collection of Java's garbage explains.
_ALIVE_TIMEOUT_SECONDS = 8.0


def has_worker(port: int, model: str) -> bool:
    """Whether a model has a worker that answers, by the management API on a loopback port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", f"/models/{model}")
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            return False
        (described,) = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return any(worker["status"] == "READY" for worker in described["workers"])


def answers(port: int, path: str = "/ping", timeout: float = _ALIVE_TIMEOUT_SECONDS) -> bool:
    """Whether a loopback port answers HTTP, whatever it says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def count_greeting(sockets: Path, timeout: float = _ALIVE_TIMEOUT_SECONDS) -> tuple[int, int]:
    """How many workers greet within `timeout` seconds in all, and how many there are, by their folder of sockets."""
    paths, give_up = find_sockets(sockets), time.monotonic() + timeout
    connections = [socket.socket(socket.AF_UNIX) for _ in paths]
    try:
        greeting = [_greets(*each, give_up) for each in zip(connections, paths, strict=True)]
    finally:
        for connection in connections:
            connection.close()
    return sum(greeting), len(paths)


def _greets(connection: socket.socket, path: Path, give_up: float) -> bool:
    connection.settimeout(max(give_up - time.monotonic(), 0.01))
    try:
        connection.connect(str(path))
        return connection.recv(len(GREETING)) == GREETING
    except OSError:
        return False


def main(arguments: list[str] | None = None) -> int:
    """0 where both models are ready, or alive: an exec probe, since kubelet reaches neither loopback nor a socket."""
    parser = argparse.ArgumentParser(prog="python -m pneumoserve.models.probe", description=__doc__)
    parser.add_argument("--management-port", type=int, default=8086, help="TorchServe's management port")
    parser.add_argument("--inference-port", type=int, default=8085, help="TorchServe's inference port")
    parser.add_argument("--sockets", type=Path, help="folder of the workers' sockets, where there is no TorchServe")
    parser.add_argument("--alive", action="store_true", help="ask only whether it answers")
    options = parser.parse_args(arguments)
    if options.sockets is not None:
        greeting, workers = count_greeting(
            options.sockets, _ALIVE_TIMEOUT_SECONDS if options.alive else _TIMEOUT_SECONDS
        )
        return 0 if greeting >= (workers if options.alive else 1) else 1
    if options.alive:
        return 0 if answers(options.inference_port) else 1
    return 0 if all(has_worker(options.management_port, model) for model in (DETECTOR, TYPER)) else 1


if __name__ == "__main__":
    sys.exit(main())
