"""A worker: both models of a release in one process, for whoever connects to its socket; `models.workers` starts it.

It scores one image at a time, of each connection in turn. What it cannot explain ends it: the front sends what was in
its hands to another one, or to the one that takes its place.
"""

from __future__ import annotations

import argparse
import logging
import selectors
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from pneumoserve.imaging import SIZE
from pneumoserve.imaging.confinement import die_with_parent
from pneumoserve.logs import set_up_logs
from pneumoserve.models.exchange import GREETING, LENGTH, MODELS
from pneumoserve.models.scorer import Scorer

# How it ends where its models do not load, so that starting it again would not help.
CANNOT_LOAD: Final = 3
_REQUEST_BYTES: Final = 1 + SIZE * SIZE
# A request that has begun comes at once: the front writes it whole.
_STALL_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Load the models and serve until a signal; CANNOT_LOAD where they do not load."""
    parser = argparse.ArgumentParser(prog="python -m pneumoserve.models.worker", description=__doc__)
    parser.add_argument("--listen", type=int, required=True, help="file descriptor of the socket, which listens")
    parser.add_argument("--models", type=Path, required=True, help="folder with each model's unpacked archive")
    options = parser.parse_args(arguments)
    die_with_parent()
    # Whoever started it waits for these signals, and so blocks them.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    set_up_logs()
    try:
        scorers = {name: Scorer(options.models / name, {}) for name in MODELS}
    except Exception as error:  # noqa: BLE001 - whatever it is, it would be so again
        _log.critical("the models do not load: %s: %s", type(error).__name__, error)
        return CANNOT_LOAD
    serve(socket.socket(fileno=options.listen), scorers)
    return 0


def serve(listening: socket.socket, scorers: Mapping[str, Scorer]) -> None:
    """Answer all that connect, for as long as this process runs."""
    with selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listening:
                    _greet(listening, selector)
                else:
                    _serve_once(key.fileobj, scorers, selector)  # type: ignore[arg-type]


def _greet(listening: socket.socket, selector: selectors.BaseSelector) -> None:
    connection, _ = listening.accept()
    connection.settimeout(_STALL_SECONDS)
    try:
        connection.sendall(GREETING)
    except OSError:
        # A probe, or a front that has ended, does not wait for it.
        connection.close()
    else:
        selector.register(connection, selectors.EVENT_READ)


def _serve_once(connection: socket.socket, scorers: Mapping[str, Scorer], selector: selectors.BaseSelector) -> None:
    """Answer one request; the connection is closed where it has ended, or says what cannot be."""
    try:
        request = _read_request(connection)
        if request is not None and request[0] < len(MODELS):
            answer = _score(scorers[MODELS[request[0]]], request)
            connection.sendall(LENGTH.pack(len(answer)) + answer)
            return
    except OSError:
        pass
    selector.unregister(connection)
    connection.close()


def _score(scorer: Scorer, request: bytearray) -> bytes:
    (score,) = scorer.scores([np.frombuffer(request, np.uint8, offset=1).reshape(SIZE, SIZE)])
    return orjson.dumps(asdict(score))


def _read_request(connection: socket.socket) -> bytearray | None:
    """One whole request, None where the connection ends before."""
    request = bytearray(_REQUEST_BYTES)
    rest = memoryview(request)
    while rest:
        length = connection.recv_into(rest)
        if not length:
            return None
        rest = rest[length:]
    return request


if __name__ == "__main__":
    sys.exit(main())
