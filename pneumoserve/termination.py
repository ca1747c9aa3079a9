"""Telling why a container ends, where people and Kubernetes look."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

from pneumoserve.logs import wants_json


def explain_end(message: str) -> None:
    """Write one sentence to stderr, or to a log of JSON, and to the container's termination log.

    The log is TERMINATION_LOG, by default Kubernetes' /dev/termination-log where that exists.
    """
    if wants_json():
        logging.getLogger(__name__).critical(message)
    else:
        print(message, file=sys.stderr, flush=True)  # noqa: T201 - stderr is where a refused start is read
    log = Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log"))
    if "TERMINATION_LOG" in os.environ or log.exists():
        with contextlib.suppress(OSError):
            log.write_text(message + "\n")
