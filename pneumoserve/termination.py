"""Telling why a container ends, where people and Kubernetes look."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def explain_end(message: str) -> None:
    """Write one sentence to stderr and to the container's termination log.

    The log is TERMINATION_LOG, by default Kubernetes' /dev/termination-log where that exists.
    """
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - stderr is where a refused start is read
    log = Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log"))
    if "TERMINATION_LOG" in os.environ or log.exists():
        with contextlib.suppress(OSError):
            log.write_text(message + "\n")
