"""Readiness of TorchServe: every model has a worker that is READY. `/ping` says Healthy before that."""

from __future__ import annotations

import argparse
import http.client
import json
import sys

from pneumoserve.names import DETECTOR, TYPER

_TIMEOUT_SECONDS = 2.0


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


def main(arguments: list[str] | None = None) -> int:
    """0 where both models are ready: an exec probe, since kubelet cannot reach loopback."""
    parser = argparse.ArgumentParser(prog="python -m pneumoserve.models.probe", description=__doc__)
    parser.add_argument("--management-port", type=int, default=8086, help="TorchServe's management port")
    port = parser.parse_args(arguments).management_port
    return 0 if all(has_worker(port, model) for model in (DETECTOR, TYPER)) else 1


if __name__ == "__main__":
    sys.exit(main())
