"""Probes of TorchServe. Ready: every model has a worker that is READY. Alive: Java answers HTTP at all.

`/ping` says Healthy before the workers have loaded, and something else while one is started again, so its word counts
for neither; that there is an answer is what a frozen Java cannot give.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys

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


def main(arguments: list[str] | None = None) -> int:
    """0 where both models are ready, or Java is alive: an exec probe, since kubelet cannot reach loopback."""
    parser = argparse.ArgumentParser(prog="python -m pneumoserve.models.probe", description=__doc__)
    parser.add_argument("--management-port", type=int, default=8086, help="TorchServe's management port")
    parser.add_argument("--inference-port", type=int, default=8085, help="TorchServe's inference port")
    parser.add_argument("--alive", action="store_true", help="ask only whether it answers")
    options = parser.parse_args(arguments)
    if options.alive:
        return 0 if answers(options.inference_port) else 1
    return 0 if all(has_worker(options.management_port, model) for model in (DETECTOR, TYPER)) else 1


if __name__ == "__main__":
    sys.exit(main())
